"""What happens to pictures between their maker and the model, as the gates try it."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

from recipe.drawing import SIDE

Picture = Image.Image


def _jpeg(picture: Picture) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def _upscaled(picture: Picture) -> Picture:
    return picture.resize((3 * SIDE, 3 * SIDE), Image.Resampling.BICUBIC)


def _wide(picture: Picture) -> Picture:
    """Bars left and right: the processor's centre crop takes them off again."""
    canvas = Image.new("RGB", (SIDE * 16 // 9, SIDE))
    canvas.paste(picture, ((canvas.width - SIDE) // 2, 0))
    return canvas


def _framed(picture: Picture) -> Picture:
    """Bars all around: things become a sixth smaller."""
    inner = picture.resize((SIDE * 5 // 6,) * 2, Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIDE, SIDE))
    canvas.paste(inner, ((SIDE - inner.width) // 2,) * 2)
    return canvas


USES: dict[str, Callable[[Picture], Picture]] = {
    "as drawn": lambda picture: picture,
    "upscaled 3x": _upscaled,
    "JPEG quality 60": _jpeg,
    "letterboxed to 16:9": _wide,
    "framed at 5/6": _framed,
}
