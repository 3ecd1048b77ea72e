"""Published geometries by name: random weights of these shapes cost what the checkpoints cost, and answer nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adafv.errors import InputError, shown

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaNextConfig

_VIT_L = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_VIT_TINY = {
    "model_type": "clip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
    "projection_dim": 64,
}
_GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # rows and columns of tiles, as published


@dataclass(frozen=True)
class Geometry:
    """The shape of a checkpoint.

    Args:
        name: as it is chosen.
        text: fields of the language model's configuration.
        vision: fields of the vision tower's.
        tiles: whether a picture is cut into tiles beside its thumbnail (LLaVA-NeXT).
        keeps: budgets that published tables have for it, in visual tokens, the largest first.
        picture: (width, height) in pixels of the picture that is asked about.
    """

    name: str
    text: dict[str, Any]
    vision: dict[str, Any] = field(default_factory=lambda: _VIT_L)
    tiles: bool = False
    keeps: tuple[int, ...] = (192, 128, 64, 29)
    picture: tuple[int, int] = (640, 480)

    def config(self, image_token: int) -> LlavaConfig | LlavaNextConfig:
        """Make the configuration; `image_token` is the tokenizer's id of `<image>`."""
        from transformers import LlavaConfig, LlavaNextConfig  # here, so that naming geometries needs no transformers

        shared: dict[str, Any] = {
            "vision_config": dict(self.vision),
            "text_config": dict(self.text),
            "image_token_index": image_token,
            "tie_word_embeddings": False,
        }
        if not self.tiles:
            return LlavaConfig(**shared, image_seq_length=(self.side // self.vision["patch_size"]) ** 2)
        return LlavaNextConfig(**shared, image_grid_pinpoints=self.pinpoints)

    @property
    def side(self) -> int:
        """Pixels of a crop's side."""
        return int(self.vision["image_size"])

    @property
    def pinpoints(self) -> list[list[int]]:
        """(height, width) in pixels of the mosaics that a picture may be cut into."""
        return [[rows * self.side, columns * self.side] for rows, columns in _GRIDS]


def _llama(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, vocab: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": vocab - 1,  # which random weights choose once in tens of thousands of tokens
        "pad_token_id": 0,
    }


_7B = _llama(4096, 11008, 32, 32, 32, 32064)
_13B = _llama(5120, 13824, 40, 40, 40, 32064)
_34B = _llama(7168, 20480, 60, 56, 8, 64064)
_NEXT: dict[str, Any] = {"tiles": True, "keeps": (640, 320, 160), "picture": (672, 672)}

GEOMETRIES = {
    one.name: one
    for one in (
        Geometry("llava-1.5-7b", _7B),
        Geometry("llava-1.5-13b", _13B),
        Geometry("llava-next-7b", _7B, **_NEXT),
        Geometry("llava-next-13b", _13B, **_NEXT),
        Geometry("llava-next-34b", _34B, **_NEXT),
        Geometry("llava-0.8b", _llama(2048, 5632, 16, 16, 16, 32064)),
        Geometry("tiny", _llama(64, 128, 2, 4, 2, 512), _VIT_TINY, keeps=(32, 16, 8)),
        Geometry("tiny-next", _llama(64, 128, 2, 4, 2, 512), _VIT_TINY, True, keeps=(64, 32, 16), picture=(224, 224)),
    )
}
"""By name; `llava-0.8b` is LLaVA-1.5 with a language model that a laptop runs, the tiny ones try things out."""


def geometry(name: str) -> Geometry:
    """Find a geometry by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in GEOMETRIES:
        known = ", ".join(GEOMETRIES)
        raise InputError(f"geometry: {shown(name)} is not one of {known}", f"choose from {known}")
    return GEOMETRIES[name]
