"""Images: open one image as upright RGB, or say precisely why that cannot be done.

Where a file leaves a choice: transparency (alpha, palette or colour key) is composited over white, EXIF
orientation is applied, an animation gives its first frame, and 16-bit grey is scaled from 0..65535. Modes I
and F do not say what white is: it is the least of 1 (F only), 255 and 65535 that bounds the values; an image
with negative or larger values is stretched from its least value to its greatest.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress

from PIL import ExifTags, Image, ImageOps

from adafv.errors import ImageError
from adafv.image_files import ImageSource, explained, name_of, opened, stream_of

MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of RGB
_ORIENTATION = ExifTags.Base.Orientation


def open_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image: upright, RGB, first frame, without metadata.

    Args:
        source: a path, the bytes of an image file, or an image (as it stands; it is not changed).
        max_pixels: larger images are refused from their header; Pillow's own limit holds too.

    Returns:
        A new 8-bit RGB image of at least 1 x 1 pixels.

    Raises:
        ImageError: missing, unreadable, empty, no image, damaged, truncated or too large.
    """
    with opened(source, max_pixels) as image:
        image.load()
        rgb = _rgb(image)
        rgb.info = {}  # what stayed would make the next reader turn the image a second time
        rgb.getexif()[_ORIENTATION] = _orientation(image)
        ImageOps.exif_transpose(rgb, in_place=True)
        return rgb


def image_size(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright (width, height) in pixels, from the header alone.

    A PNG that keeps its EXIF orientation behind its pixels is reported as it is stored.

    Raises:
        ImageError: as `check_image`.
    """
    with opened(source, max_pixels) as image:
        width, height = image.size
        # Pillow reports the size of a TIFF upright already.
        if image.format != "TIFF" and _orientation(image) >= 5:
            return height, width
        return width, height


def check_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise the `ImageError` of `open_image` that the header shows, before a model is loaded for nothing."""
    with opened(source, max_pixels):
        pass


def check_resized(image: Image.Image, shortest_edge: int, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `ImageError` if a strip, resized to this shortest edge, has more than `max_pixels` pixels."""
    width, height = image.size
    longest_edge = shortest_edge * max(width, height) // min(width, height)
    if shortest_edge * longest_edge > max_pixels:
        grown = f"with a shortest edge of {shortest_edge}, the longest would be {longest_edge} pixels"
        raise ImageError(f"image of {width} x {height} is too thin: {grown}", "crop it or pad its short side")


def square(image: Image.Image, colour: tuple[int, int, int], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Pad an RGB image to a square, the image in its middle: `expand2square` of LLaVA's code (`mm_utils.py`).

    Raises:
        ImageError: the square would have more than `max_pixels` pixels.
    """
    width, height = image.size
    side = max(width, height)
    if width == height:
        return image
    if side**2 > max_pixels:
        what = f"image of {width} x {height} is too large to be padded to a square"
        raise ImageError(what, "make it smaller, or leave --pad out")
    padded = Image.new("RGB", (side, side), colour)
    padded.paste(image, ((side - width) // 2, (side - height) // 2))
    return padded


def content_key(source: ImageSource) -> str:
    """Hash an image to 64 hex digits that are equal for equal content, so that it is encoded once.

    Made from the encoded file, or from the upright RGB pixels of a PIL image; the two never agree.

    Raises:
        ImageError: the source cannot be read. Whether a file is an image is not looked at.
    """
    if isinstance(source, Image.Image):
        rgb = open_image(source)
        return hashlib.sha256(f"RGB {rgb.width} {rgb.height} ".encode() + rgb.tobytes()).hexdigest()
    name = name_of(source)
    with stream_of(source, name) as stream, explained(name):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or the metadata are broken."""
    with suppress(Exception):  # metadata alone never make an image unusable
        # PNG's override would decode all pixels to look for metadata behind them.
        value = Image.Image.getexif(image).get(_ORIENTATION)
        if isinstance(value, int) and 1 <= value <= 8:
            return value
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Copy as 8-bit RGB."""
    if image.mode.startswith(("I", "F")):
        return _grey(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Pillow converts premultiplied grey ("La") to nothing but LA.
    rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or floating-point grey to 8-bit grey (Pillow's own conversion clips)."""
    wide = image if image.mode in ("I", "F") else image.convert("I")
    low, high = (float(value) for value in wide.getextrema())  # type: ignore[arg-type]
    if not math.isfinite(high - low):
        raise ValueError("it has values that are not finite")
    whites = [1, 255, 65535] if image.mode == "F" else [255, 65535]
    # These are 16 bits wide, however dark they are.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        whites = [65535]
    white = next((white for white in whites if low >= 0 and high <= white), None)
    start, end = (0, white) if white else (low, high)
    scale = 255 / (end - start or 1)
    # Half a step more, since the conversion to 8 bits drops fractions.
    return wide.point(lambda value: value * scale + (0.5 - start * scale)).convert("L")
