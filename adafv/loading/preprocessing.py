"""Checks an image processor against the model before any image is asked about, or each line of a batch would fail."""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image

from adafv.errors import CheckpointError, cut
from adafv.families.stages import Stages
from adafv.loading.faults import AGAIN, rehearsed

_FILES = "preprocessor_config.json or processor_config.json"
_TOGETHER = f"config.json and {_FILES} do not belong together: {AGAIN}"
_LARGEST_EDGE = 8_192  # that an image is resized to
_LARGEST_VALUE = 1e7  # of a normalised pixel
_PROBE = (64, 32)  # pixels; not square, so that processors which make other crops of such an image show it


def check_image_processor(name: str, processor: Any, config: Any) -> None:
    """Hold the numbers of an image processor against the model's.

    Args:
        name: of the checkpoint, as the user gave it.
        processor: as transformers loaded it.
        config: of the checkpoint, its numbers checked.

    Raises:
        CheckpointError: names the field, its value, and what it could be.
    """
    images = getattr(processor, "image_processor", None)
    if images is None or getattr(processor, "tokenizer", None) is None:
        what = f"model: {name}: its processor is a {type(processor).__name__}, without image processor and tokenizer"
        raise CheckpointError(what, f"processor_config.json is wrong: {AGAIN}")
    edge = config.vision_config.image_size
    crops = bool(getattr(images, "do_center_crop", False))
    if crops or (hasattr(images, "image_grid_pinpoints") and images.crop_size is not None):
        for side in ("height", "width"):
            _check(name, f"crop_size.{side}", _part(images, "crop_size", side), edge, edge)
    if getattr(images, "do_resize", False):
        sides = [side for side in ("height", "width", "shortest_edge") if _part(images, "size", side) is not None]
        for side in sides or ["shortest_edge"]:
            _check(name, f"size.{side}", _part(images, "size", side), edge, _LARGEST_EDGE if crops else edge)
    if getattr(images, "do_normalize", False):
        for field, least in (("image_mean", 0.0), ("image_std", 1e-4)):
            _check_colours(name, field, getattr(images, field, None), least)
    if getattr(images, "do_rescale", False):
        factor: Any = getattr(images, "rescale_factor", None)
        if not _is_number(factor) or not 0 < factor <= 1:
            raise _wrong(name, "rescale_factor", factor, "a number above 0 and up to 1")


def check_preprocessing(name: str, stages: Stages) -> None:
    """Preprocess one small image, so that what does not fit the model is known before a question is asked.

    Args:
        name: of the checkpoint, as the user gave it.
        stages: of the checkpoint's family; no weights are needed.

    Raises:
        CheckpointError: whatever its image processor raises, other crops than the model's, or no pixels' values.
    """
    with rehearsed(name, f"its image processor ({_FILES})"):
        values = stages.preprocess(Image.new("RGB", _PROBE, (200, 100, 50))).values
        stages.frames(_PROBE[::-1])
    if not torch.isfinite(values).all() or values.abs().max() > _LARGEST_VALUE:
        raise CheckpointError(f"model: {name}: its image processor ({_FILES}) makes no pixels of an image", _TOGETHER)


def _part(images: Any, field: str, side: str) -> Any:
    """Read a side of a size; sizes are transformers' own dictionaries."""
    size: Any = getattr(images, field, None)
    return size.get(side) if hasattr(size, "get") else None


def _check(name: str, field: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        wanted = str(least) if least == most else f"a whole number from {least} to {most}"
        raise _wrong(name, field, value, f"{wanted}: the model takes crops of {least} x {least} pixels")


def _check_colours(name: str, field: str, value: Any, least: float) -> None:
    values = [value] if _is_number(value) else value  # one number stands for all three
    if not isinstance(values, list | tuple) or (len(values) != 3 and values is value):
        raise _wrong(name, field, value, "three numbers, for red, green and blue")
    for number in values:
        if not _is_number(number) or not least <= number <= 255:
            raise _wrong(name, field, value, f"three numbers from {least:g} to 255")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, field: str, value: object, wanted: str) -> CheckpointError:
    what = f"model: {name}: the image processor's {field} ({_FILES}) is {cut(repr(value), 60)}, not {wanted}"
    return CheckpointError(what, _TOGETHER)
