"""What happens to wide pictures between their maker and the model, as the gates try it."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

Picture = Image.Image


def _through(kind: str) -> Callable[[Picture], Picture]:
    def encoded(picture: Picture) -> Picture:
        file = io.BytesIO()
        picture.save(file, kind, quality=60)
        return Image.open(file).convert("RGB")

    return encoded


def _twice_and_back(picture: Picture) -> Picture:
    width, height = picture.size
    doubled = picture.resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    return doubled.resize((width, height), Image.Resampling.BICUBIC)


def _tripled(picture: Picture) -> Picture:
    """Not a gate: another mosaic is chosen for most pictures, and their things are larger in it."""
    return picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.BICUBIC)


USES: dict[str, Callable[[Picture], Picture]] = {
    "as drawn": lambda picture: picture,
    "JPEG quality 60": _through("JPEG"),
    "WebP quality 60": _through("WEBP"),
    "twice the size and back": _twice_and_back,
    "three times the size (no gate)": _tripled,
}
