"""The vision tower as LLaVA uses it: its kind, which layers' outputs are its features, and what saliency is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adafv.errors import CheckpointError
from adafv.signals.saliency import cls_attention, received_attention


@dataclass(frozen=True)
class Tower:
    """A kind of vision tower.

    Args:
        model_type: in its configuration.
        start: its module that gives hidden state 0, which is what the first layer takes.
        prefix: tokens in front of the patches, which are dropped: one where there is a [CLS] token.
        strategy: the `vision_feature_select_strategy` by which the patches are left, all of them and nothing else.
        attention: `(query, keys, heads, scale)`, saliency (crops, P) from the projections (crops, prefix + P, C) of
            the layer whose output is used.
        saliency: what that is, in a few words.
    """

    model_type: str
    start: str
    prefix: int
    strategy: str
    attention: Callable[[Tensor, Tensor, int, float], Tensor]
    saliency: str


def _of_cls(query: Tensor, keys: Tensor, heads: int, scale: float) -> Tensor:
    return cls_attention(query[:, 0], keys, heads, scale)


CLIP = Tower("clip_vision_model", "pre_layrnorm", 1, "default", _of_cls, "attention of [CLS]")
SIGLIP = Tower("siglip_vision_model", "embeddings", 0, "full", received_attention, "attention received")
_OTHER = "use a LLaVA checkpoint with a CLIP or SigLIP tower"
_TOWERS = {tower.model_type: tower for tower in (CLIP, SIGLIP)}


def tower_of(config: Any) -> Tower:
    """Look up the kind of a checkpoint's vision tower.

    Raises:
        CheckpointError: neither CLIP's nor SigLIP's.
    """
    tower = _TOWERS.get(config.vision_config.model_type)
    if tower is None:
        what = f"saliency is not defined for a vision tower of the type {config.vision_config.model_type!r}"
        raise CheckpointError(what, _OTHER)
    return tower


def chosen_layers(config: Any) -> int | list[int]:
    """Read `vision_feature_layer`: a hidden state or a list of them.

    In older transformers ViP-LLaVA's is `vision_feature_layers`, and the present name an extra that nobody reads.
    """
    layers: int | list[int] | None = getattr(config, "vision_feature_layer", None)
    older: int | list[int] = getattr(config, "vision_feature_layers", [])
    return older if layers is None else layers


def choose_layers(config: Any, layers: int | list[int]) -> None:
    """Change what `chosen_layers` reads, under every name that the configuration has for it."""
    config.vision_feature_layer = layers
    if hasattr(config, "vision_feature_layers"):
        config.vision_feature_layers = layers


def feature_layers(config: Any) -> list[int]:
    """List the hidden states that are the features, in the model's own order.

    0 is what the first layer takes, i the output of the i-th layer, before the tower's final norm. The number or the
    list of them is `vision_feature_layer`; negative numbers count from the end.

    Raises:
        CheckpointError: one that the tower does not have.
    """
    layers: int = config.vision_config.num_hidden_layers
    chosen = chosen_layers(config)
    listed = [chosen] if isinstance(chosen, int) else chosen
    used = [index if index >= 0 else layers + 1 + index for index in listed]
    if not all(0 <= index <= layers for index in used) or not any(used):
        raise CheckpointError(
            f"vision_feature_layer {chosen} is not the output of one of the tower's {layers} layers",
            "the checkpoint's config.json is wrong: fetch it again",
        )
    return used


def layers_that_run(config: Any) -> int:
    """Count the vision layers up to the deepest one whose output is used; later ones need not be loaded or run."""
    return max(feature_layers(config))


def check_tower(name: str, config: Any) -> None:
    """Refuse a tower for which saliency is not defined, and one whose patches are not what is fed.

    Raises:
        CheckpointError: neither CLIP's nor SigLIP's, [CLS] fed as if it were a patch, or a patch dropped as [CLS].
    """
    try:
        tower = tower_of(config)
    except CheckpointError as error:
        raise CheckpointError(f"model: {name}: config.json: {error.what}", error.fix) from error
    strategy = getattr(config, "vision_feature_select_strategy", "default")  # ViP-LLaVA knows no other
    if strategy != tower.strategy:
        does = "would feed [CLS] as if it were a patch" if tower.prefix else "would drop a patch: there is no [CLS]"
        what = f"vision_feature_select_strategy {strategy!r} with a {tower.model_type} {does}"
        raise CheckpointError(f"model: {name}: config.json: {what}", f"it takes {tower.strategy!r}; {_OTHER}")
