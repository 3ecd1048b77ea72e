"""What a checkpoint is: geometry, parameters and memory, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adafv import flops
from adafv.costs.parameters import Parameters, WeightBytes, count_parameters
from adafv.families.tower import chosen_layers, layers_that_run


@dataclass(frozen=True)
class LanguageModel:
    """Geometry of the language model, under the names of its configuration."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float | None
    max_position_embeddings: int | None

    @classmethod
    def of(cls, config: Any) -> LanguageModel:
        """Read the configuration of a LLaVA."""
        text, geometry = config.text_config, flops.TextGeometry.from_config(config)
        return cls(
            model_type=text.model_type,
            hidden_size=geometry.hidden,
            intermediate_size=geometry.mlp,
            num_hidden_layers=geometry.layers,
            num_attention_heads=geometry.heads,
            num_key_value_heads=geometry.kv_heads,
            head_dim=geometry.head_dim,
            vocab_size=geometry.vocab,
            rope_theta=(getattr(text, "rope_parameters", None) or {}).get("rope_theta"),
            max_position_embeddings=getattr(text, "max_position_embeddings", None),
        )


@dataclass(frozen=True)
class VisionTower:
    """Geometry of the vision tower, under the names of its configuration; `layers_run` of its layers are used."""

    model_type: str
    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layers_run: int

    @classmethod
    def of(cls, config: Any) -> VisionTower:
        """Read the configuration of a LLaVA."""
        vision = config.vision_config
        return cls(
            model_type=vision.model_type,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            num_hidden_layers=vision.num_hidden_layers,
            num_attention_heads=vision.num_attention_heads,
            layers_run=layers_that_run(config),
        )


@dataclass(frozen=True)
class Description:
    """A checkpoint.

    Args:
        family: `model_type` of the whole.
        dtype: that the weights are published in, where the configuration says so.
        image_grid_pinpoints: (height, width) in pixels of the mosaics that an image may be cut into.
        kv_cache_bytes_per_token: of all layers, at 16 bit.
    """

    family: str
    dtype: str | None
    text_config: LanguageModel
    vision_config: VisionTower
    vision_feature_layer: int | Sequence[int]
    image_grid_pinpoints: list[list[int]] | None
    parameters: Parameters
    weights_bytes: WeightBytes
    kv_cache_bytes_per_token: int


def describe(config: Any) -> Description:
    """Read and count what a configuration says.

    Args:
        config: of a checkpoint of any family, as published.

    Raises:
        CheckpointError: a feature layer that the vision tower does not have.
    """
    parameters, weights_bytes = count_parameters(config)
    dtype = getattr(config, "dtype", None) or getattr(config.text_config, "dtype", None)
    return Description(
        family=config.model_type,
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        text_config=LanguageModel.of(config),
        vision_config=VisionTower.of(config),
        vision_feature_layer=chosen_layers(config),
        image_grid_pinpoints=getattr(config, "image_grid_pinpoints", None),
        parameters=parameters,
        weights_bytes=weights_bytes,
        kv_cache_bytes_per_token=flops.kv_cache_bytes(flops.TextGeometry.from_config(config), 1, 2),
    )
