"""Loads a checkpoint's processor: image processor, tokenizer and chat template, from files of any age."""

from __future__ import annotations

from typing import Any

from transformers import AutoProcessor, AutoTokenizer

from adafv.families.base import Family


def load_processor(source: str, family: Family, hub: dict[str, Any]) -> Any:
    """Load the processor, its image processor on Pillow: torchvision resizes a little differently, and may be missing.

    Fields that old files lack (`patch_size`, `num_additional_image_tokens`, ...) serve only to repeat the
    placeholder in a text, which nobody does here: visual tokens are counted where they are made.

    Args:
        source: folder or hub id.
        family: the checkpoint's.
        hub: keyword arguments of `from_pretrained`.

    Raises:
        OSError, ValueError: what transformers raises.
    """
    plain = {key: value for key, value in hub.items() if key != "trust_remote_code"}
    # Exports by early versions name a class that is gone; only what is in CLIP's line is taken for it.
    fields, _ = family.image_processor.get_image_processor_dict(source, **plain)
    if fields.get("image_processor_type") != "CLIPFeatureExtractor" and not family.in_parts:
        return AutoProcessor.from_pretrained(source, backend="pil", **hub)
    parts = [family.image_processor.from_pretrained(source, **plain), AutoTokenizer.from_pretrained(source, **hub)]
    fields, _ = family.processor.get_processor_dict(source, **plain)
    return family.processor.from_args_and_dict(parts, fields)
