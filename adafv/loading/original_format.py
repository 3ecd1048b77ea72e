"""Knows LLaVA's original format, to refuse it with the name of the converted checkpoint.

Those checkpoints hold a language model and a projector; vision tower and processor come from elsewhere. Their
`model_type` may be the one that transformers uses for its own LLaVA, which then reads a geometry that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from adafv.errors import CheckpointError

_CONVERTED = {
    "llava-v1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "llava-v1.5-13b": "llava-hf/llava-1.5-13b-hf",
    "llava-v1.6-vicuna-7b": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava-v1.6-vicuna-13b": "llava-hf/llava-v1.6-vicuna-13b-hf",
    "llava-v1.6-mistral-7b": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava-v1.6-34b": "llava-hf/llava-v1.6-34b-hf",
}
# LLaVA-1.5's script drops the image_newline of 1.6.
_SCRIPT = "src/transformers/models/llava/convert_llava_weights_to_hf.py of the transformers sources"
_NEXT_SCRIPT = "src/transformers/models/llava_next/convert_llava_next_weights_to_hf.py of the transformers sources"
# The first llava-hf/llava-1.5-13b-hf calls itself LlavaForCausalLM, and is converted.
_KINDS = re.compile(r"llava_?(llama|mistral|mixtral|mpt|qwen2?|gemma|phi)(forcausallm)?")


def check_not_original(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose raw config.json is of the original format.

    Args:
        name: as the user gave it.
        config: config.json as it stands, since transformers drops what it does not know.

    Raises:
        CheckpointError: names the converted checkpoint, or for a fine-tune the one it is built on.
    """
    if isinstance(config.get("vision_config"), dict):
        return
    kinds = [str(config.get("model_type")), *map(str, config.get("architectures") or ())]
    if "mm_vision_tower" in config or any(_KINDS.fullmatch(kind.lower()) for kind in kinds):
        raise original_format(name, config)


def holds_original_weights(tensors: Iterable[str]) -> bool:
    """Tell whether there is a projector under its original name."""
    return any("mm_projector." in tensor for tensor in tensors)


def original_format(name: str, config: Mapping[str, Any]) -> CheckpointError:
    """Make the error for a checkpoint of the original format."""
    what = f"model: {name} is in LLaVA's original format, without vision tower and processor"
    twin = _CONVERTED.get(name.rstrip("/").rpartition("/")[2].lower())
    if twin:
        return CheckpointError(what, f"use it in Hugging Face format: --model {twin}")
    script = _NEXT_SCRIPT if _has_tiles(config) else _SCRIPT
    return CheckpointError(what, f"convert it with {script}, or use --model {_kin(config)}, a model of its kind")


def _has_tiles(config: Mapping[str, Any]) -> bool:
    """Tell whether images are cut into tiles, as from LLaVA-1.6 on."""
    return "anyres" in str(config.get("image_aspect_ratio")) or "unpad" in str(config.get("mm_patch_merge_type"))


def _kin(config: Mapping[str, Any]) -> str:
    """Name the converted checkpoint with this one's kind of language model and crops."""
    hidden = config.get("hidden_size")
    if hidden == 7168:
        return _CONVERTED["llava-v1.6-34b"]
    if "mistral" in f"{config.get('model_type')} {config.get('architectures')}".lower():
        return _CONVERTED["llava-v1.6-mistral-7b"]
    size = "13b" if hidden == 5120 else "7b"
    return _CONVERTED[f"llava-v1.6-vicuna-{size}" if _has_tiles(config) else f"llava-v1.5-{size}"]
