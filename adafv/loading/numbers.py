"""Checks the numbers of a configuration before anything is built from them: a wrong one costs memory or hours."""

from __future__ import annotations

import math
from typing import Any

import torch

from adafv.errors import CheckpointError, cut
from adafv.loading.faults import AGAIN

# The largest that is believed, far beyond any model; `None` may stand for the fields of _OPTIONAL.
_MOST = {
    "text_config": {
        "vocab_size": 2**24,
        "hidden_size": 2**17,
        "intermediate_size": 2**19,
        "num_hidden_layers": 1_000,
        "num_attention_heads": 2**12,
        "num_key_value_heads": 2**12,
        "head_dim": 2**12,
        "max_position_embeddings": 2**31,
        "sliding_window": 2**31,
    },
    "vision_config": {
        "hidden_size": 2**14,
        "intermediate_size": 2**16,
        "num_hidden_layers": 1_000,
        "num_attention_heads": 2**10,
        "image_size": 4_096,
        "patch_size": 4_096,
    },
}
_OPTIONAL = {"num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window"}
_MOST_PATCHES = 2**16  # of a crop
_MOST_MOSAICS, _MOST_TILES = 256, 144
_ORIGINAL_MARKER = -200  # stands for the image in LLaVA's original code, and is no token
_NEWER = "use a newer conversion, for example llava-hf/llava-1.5-7b-hf"


def check_numbers(name: str, config: Any) -> None:
    """Hold every number of a configuration that sizes depend on against what a model can have.

    Args:
        name: of the checkpoint, as the user gave it.
        config: as transformers read it.

    Raises:
        CheckpointError: names the field, its value, and what it could be.
    """
    for part, most in _MOST.items():
        for field, largest in most.items():
            value = getattr(getattr(config, part), field, None)
            if not (value is None and field in _OPTIONAL) and not _is_count(value, largest):
                raise wrong(name, f"{part}.{field}", value, f"a whole number from 1 to {largest:,}")
    _check_text(name, config.text_config)
    _check_vision(name, config.vision_config)
    for place, holder in (("dtype", config), ("text_config.dtype", config.text_config)):
        dtype = getattr(holder, "dtype", None)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise wrong(name, place, dtype, "a floating-point type such as float16")
    token = config.image_token_id
    if token == _ORIGINAL_MARKER:
        marker = f"image_token_index is {token}, which marks images in LLaVA's original format and is no token"
        raise CheckpointError(f"model: {name}: config.json: {marker}", _NEWER)
    if token != 0 and not _is_count(token, 2**31):
        raise wrong(name, "image_token_index", token, "the id of a token")
    if hasattr(config, "image_grid_pinpoints"):
        _check_mosaics(name, config.image_grid_pinpoints, config.vision_config.image_size)


def smallest_count(config: Any) -> int:
    """Parameters that a checkpoint of this configuration has at least, in closed form: its matrices.

    Args:
        config: its numbers have been checked.
    """
    text, vision = config.text_config, config.vision_config
    heads, width = text.num_attention_heads, text.hidden_size
    head = getattr(text, "head_dim", None) or width // heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    text_layer = 2 * width * head * (heads + groups) + 2 * width * text.intermediate_size
    vision_layer = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    return int(text.num_hidden_layers * text_layer + text.vocab_size * width + vision.num_hidden_layers * vision_layer)


def wrong(name: str, field: str, value: object, wanted: str) -> CheckpointError:
    """Make the error for a field of config.json."""
    return CheckpointError(f"model: {name}: config.json: {field} is {cut(repr(value), 60)}, not {wanted}", AGAIN)


def _is_count(value: object, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


def _check_text(name: str, text: Any) -> None:
    heads, groups = text.num_attention_heads, getattr(text, "num_key_value_heads", None) or 1
    if heads % groups:
        raise wrong(name, "text_config.num_key_value_heads", groups, f"a divisor of the {heads} attention heads")
    rope = getattr(text, "rope_parameters", None) or {}
    theta = rope.get("rope_theta", 1.0) if isinstance(rope, dict) else rope
    if not _is_finite(theta) or theta <= 0:
        raise wrong(name, "text_config.rope_theta", theta, "a number above 0")
    _check_epsilon(name, "text_config.rms_norm_eps", getattr(text, "rms_norm_eps", 0.0))


def _check_vision(name: str, vision: Any) -> None:
    side = vision.image_size // vision.patch_size
    if not 1 <= side**2 <= _MOST_PATCHES:
        raise wrong(name, "vision_config.patch_size", vision.patch_size, f"that of an image of {vision.image_size}")
    if vision.hidden_size % vision.num_attention_heads:
        what = f"a divisor of the width {vision.hidden_size}"
        raise wrong(name, "vision_config.num_attention_heads", vision.num_attention_heads, what)
    if vision.num_channels != 3:
        raise wrong(name, "vision_config.num_channels", vision.num_channels, "3: red, green and blue")
    _check_epsilon(name, "vision_config.layer_norm_eps", vision.layer_norm_eps)


def _check_epsilon(name: str, field: str, value: object) -> None:
    if not _is_finite(value) or not 0 <= float(str(value)) < 1:
        raise wrong(name, field, value, "a small number")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_mosaics(name: str, sizes: Any, tile: int) -> None:
    """Refuse tiles of another size than a crop, and more of them than an image is worth in memory and time."""
    field, wanted = "image_grid_pinpoints", f"[height, width] in multiples of {tile}, up to {_MOST_TILES} tiles"
    if not isinstance(sizes, list | tuple) or not 1 <= len(sizes) <= _MOST_MOSAICS:
        raise wrong(name, field, sizes, f"a list of 1 to {_MOST_MOSAICS} sizes")
    for size in sizes:
        if not isinstance(size, list | tuple) or len(size) != 2 or not all(_is_count(edge, 2**20) for edge in size):
            raise wrong(name, field, size, wanted)
        height, width = size
        if height % tile or width % tile or height * width > _MOST_TILES * tile**2:
            raise wrong(name, field, size, wanted)
