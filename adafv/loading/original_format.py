"""Knows LLaVA's original format, and refuses what of it has no equal in Hugging Face format.

Those checkpoints (`liuhaotian/llava-v1.5-7b`, `-v1.6-*` and their fine-tunes) hold a language model and a projector;
vision tower and image processor come from elsewhere. Their `model_type` may be the one that transformers uses for its
own LLaVA, which then reads a geometry that is not there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from typing import Any

from adafv.errors import CheckpointError, shown

_CONVERTED = {
    "llava-v1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "llava-v1.5-13b": "llava-hf/llava-1.5-13b-hf",
    "llava-v1.6-vicuna-7b": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava-v1.6-vicuna-13b": "llava-hf/llava-v1.6-vicuna-13b-hf",
    "llava-v1.6-mistral-7b": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava-v1.6-34b": "llava-hf/llava-v1.6-34b-hf",
}
# The first llava-hf/llava-1.5-13b-hf calls itself LlavaForCausalLM, and is converted.
_KINDS = re.compile(r"llava_?(llama|mistral|mixtral|mpt|qwen2?|gemma|phi)(forcausallm)?")
_TEXT = ("llama", "mistral")


def is_original(config: Mapping[str, Any]) -> bool:
    """Tell whether a raw config.json is of the original format."""
    if isinstance(config.get("vision_config"), dict):
        return False
    return "mm_vision_tower" in config or bool(_kinds(config))


def holds_original_weights(tensors: Iterable[str]) -> bool:
    """Tell whether there is a projector under its original name."""
    return any("mm_projector." in tensor for tensor in tensors)


def text_type(config: Mapping[str, Any]) -> str:
    """Name the `model_type` of the language model; that of a plain LLaVA is Llama's."""
    return next(iter(_kinds(config)), "llama")


def has_tiles(config: Mapping[str, Any]) -> bool:
    """Tell whether images are cut into tiles, as from LLaVA-1.6 on."""
    ratio = config.get("image_aspect_ratio")
    return ratio is not None and ratio not in ("square", "pad")


def pads(config: Mapping[str, Any]) -> bool:
    """Tell whether images are padded to squares before they are resized."""
    return config.get("image_aspect_ratio") == "pad"


def check_convertible(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that no model of Hugging Face's computes the same as.

    Args:
        name: as the user gave it.
        config: config.json as it stands.

    Raises:
        CheckpointError: names the field, its value and what could be used instead.
    """
    kind, tiles = text_type(config), has_tiles(config)
    projector = config.get("mm_projector_type", "linear")
    refusals: dict[str, tuple[object, bool]] = {
        "model_type": (config.get("model_type"), kind not in _TEXT),
        "mm_projector_type": (projector, projector != "mlp2x_gelu"),
        "mm_resampler_type": (config.get("mm_resampler_type"), config.get("mm_resampler_type") is not None),
        "mm_use_im_start_end": (True, bool(config.get("mm_use_im_start_end"))),
        "mm_vision_select_feature": (
            config.get("mm_vision_select_feature"),
            config.get("mm_vision_select_feature", "patch") != "patch",
        ),
        "mm_vision_select_layer": (
            config.get("mm_vision_select_layer"),
            not isinstance(config.get("mm_vision_select_layer", -2), int),
        ),
        "image_aspect_ratio": (config.get("image_aspect_ratio"), tiles and config["image_aspect_ratio"] != "anyres"),
        "mm_patch_merge_type": (
            config.get("mm_patch_merge_type"),
            tiles and config.get("mm_patch_merge_type") != "spatial_unpad",
        ),
    }
    for field, (value, refused) in refusals.items():
        if refused:
            what = f"model: {name} is in LLaVA's original format, with {field} {shown(value)}"
            raise CheckpointError(f"{what}, for which there is no equal in Hugging Face format", _instead(name, config))
    if tiles:
        grid_pinpoints(name, config)


def grid_pinpoints(name: str, config: Mapping[str, Any]) -> list[list[int]]:
    """Read the mosaics, [height, width] each, from a list or its text; the original has [width, height].

    A list that holds the turned one of every mosaic stays as it is, as in the converted checkpoints, whose order
    decides between mosaics that suit an image alike.

    Raises:
        CheckpointError: something else.
    """
    found: Any = config.get("image_grid_pinpoints")
    if isinstance(found, str):
        try:
            found = ast.literal_eval(found)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found = None
    pairs = [list(pair) for pair in found if isinstance(pair, list | tuple)] if isinstance(found, list | tuple) else []
    if not pairs or len(pairs) != len(found) or any(len(pair) != 2 for pair in pairs):
        what = f"model: {name}: config.json: image_grid_pinpoints is {shown(config.get('image_grid_pinpoints'))}"
        raise CheckpointError(f"{what}, not a list of [width, height]", _instead(name, config))
    turned = [pair[::-1] for pair in pairs]
    return pairs if all(pair in pairs for pair in turned) else turned


def original_weights(name: str) -> CheckpointError:
    """Make the error for original tensors under a configuration of Hugging Face's."""
    what = f"model: {name} has weights in LLaVA's original format and a config.json in Hugging Face's"
    return CheckpointError(what, "fetch the config.json that belongs to them; it names an mm_vision_tower")


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """List the language models that the names in a configuration speak of."""
    names = [str(config.get("model_type")), *map(str, config.get("architectures") or ())]
    return [match[1] for name in names if (match := _KINDS.fullmatch(name.lower()))]


def _instead(name: str, config: Mapping[str, Any]) -> str:
    """Name what can be used: the same checkpoint converted, or one with its kind of language model and crops."""
    twin = _CONVERTED.get(name.rstrip("/").rpartition("/")[2].lower())
    if twin:
        return f"use it in Hugging Face format: --model {twin}"
    return f"run it with the code that it was trained with, or use --model {_kin(config)}, a model of its kind"


def _kin(config: Mapping[str, Any]) -> str:
    hidden = config.get("hidden_size")
    if hidden == 7168:
        return _CONVERTED["llava-v1.6-34b"]
    if text_type(config) == "mistral":
        return _CONVERTED["llava-v1.6-mistral-7b"]
    size = "13b" if hidden == 5120 else "7b"
    return _CONVERTED[f"llava-v1.6-vicuna-{size}" if has_tiles(config) else f"llava-v1.5-{size}"]
