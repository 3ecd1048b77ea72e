"""Loads a checkpoint's processor: image processor, tokenizer and chat template, from files of any age."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
)

_KINDS = {True: (LlavaNextProcessor, LlavaNextImageProcessorPil), False: (LlavaProcessor, CLIPImageProcessorPil)}


def load_processor(source: str, config: Any, hub: dict[str, Any]) -> Any:
    """The processor, its image processor on Pillow: torchvision resizes a little differently, and may be missing.

    Fields that old files lack (`patch_size`, `num_additional_image_tokens`, ...) serve only to repeat the
    placeholder in a text, which nobody does here: visual tokens are counted where they are made.

    Args:
        source: folder or hub id.
        config: the checkpoint's.
        hub: keyword arguments of `from_pretrained`.

    Raises:
        OSError, ValueError: what transformers raises.
    """
    processor, images = _KINDS[config.model_type == "llava_next"]
    plain = {key: value for key, value in hub.items() if key != "trust_remote_code"}
    # Exports by early versions name a class that is gone; only what is in CLIP's line is taken for it.
    fields, _ = images.get_image_processor_dict(source, **plain)
    if fields.get("image_processor_type") != "CLIPFeatureExtractor":
        return AutoProcessor.from_pretrained(source, backend="pil", **hub)
    parts = [images.from_pretrained(source, **plain), AutoTokenizer.from_pretrained(source, **hub)]
    fields, _ = processor.get_processor_dict(source, **plain)
    return processor.from_args_and_dict(parts, fields)
