"""Images: open one image as upright RGB, or say precisely why that cannot be done.

Where a file leaves a choice: transparency (alpha, palette or colour key) is composited over white, EXIF
orientation is applied, an animation gives its first frame, and 16-bit grey is scaled from 0..65535. Modes I
and F do not say what white is: it is the least of 1 (F only), 255 and 65535 that bounds the values; an image
with negative or larger values is stretched from its least value to its greatest.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from adafv.errors import ImageError

MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of RGB
_Stream = io.BytesIO | io.BufferedReader
_ORIENTATION = ExifTags.Base.Orientation
ImageSource = str | os.PathLike[str] | bytes | Image.Image

_SMALLER = "scale or crop it first; the model sees a small version anyway"
_COPY_OR_CONVERT = "if it is damaged, copy it again; otherwise save it as PNG or JPEG"


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
    with _opened(source, max_pixels) as image:
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
    with _opened(source, max_pixels) as image:
        width, height = image.size
        # Pillow reports the size of a TIFF upright already.
        if image.format != "TIFF" and _orientation(image) >= 5:
            return height, width
        return width, height


def check_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise the `ImageError` of `open_image` that the header shows, before a model is loaded for nothing."""
    with _opened(source, max_pixels):
        pass


def check_resized(image: Image.Image, shortest_edge: int, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `ImageError` if a strip, resized to this shortest edge, has more than `max_pixels` pixels."""
    width, height = image.size
    longest_edge = shortest_edge * max(width, height) // min(width, height)
    if shortest_edge * longest_edge > max_pixels:
        grown = f"with a shortest edge of {shortest_edge}, the longest would be {longest_edge} pixels"
        raise ImageError(f"image of {width} x {height} is too thin: {grown}", "crop it or pad its short side")


def content_key(source: ImageSource) -> str:
    """64 hex digits that are equal for equal content, so that it is encoded once.

    Made from the encoded file, or from the upright RGB pixels of a PIL image; the two never agree.

    Raises:
        ImageError: the source cannot be read. Whether a file is an image is not looked at.
    """
    if isinstance(source, Image.Image):
        rgb = open_image(source)
        return hashlib.sha256(f"RGB {rgb.width} {rgb.height} ".encode() + rgb.tobytes()).hexdigest()
    name = _name(source)
    with _stream(source, name) as stream, _explained(name):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _name(source: ImageSource) -> str:
    """What messages call the source."""
    if isinstance(source, bytes):
        return "image bytes"
    if isinstance(source, Image.Image):
        return "image"
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    raise ImageError(f"image: {type(source).__name__} is no image", "give a path, bytes or a PIL image")


@contextmanager
def _opened(source: ImageSource, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read; whatever goes wrong before the block ends is an `ImageError`."""
    name = _name(source)
    if isinstance(source, Image.Image):
        _check_size(name, source.size, max_pixels)
        with _explained(name):
            yield source
        return
    with _stream(source, name) as stream, _explained(name):
        image = _identify(stream, name)
        _check_size(name, image.size, max_pixels)
        yield _without_filling(image, stream) if ImageFile.LOAD_TRUNCATED_IMAGES else image


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what Pillow raises into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: too large: {error}", _SMALLER) from error
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise ImageError(f"{name}: cannot be decoded: {str(error) or repr(error)}", _COPY_OR_CONVERT) from error


def _stream(source: str | os.PathLike[str] | bytes, name: str) -> _Stream:
    if isinstance(source, bytes):
        if not source:
            raise ImageError(f"{name}: there are none", "give the content of an image file")
        return io.BytesIO(source)
    if not name:
        raise ImageError("image: the path is empty", "give the path of an image file")
    try:
        status = Path(name).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name} is a directory", "give the path of one image file")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            raise ImageError(f"{name} is not a regular file", "write it to a file, or give its bytes")
        if status.st_size == 0:
            raise ImageError(f"{name} is empty", "copy or download it again")
        return Path(name).open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        fix = "download it first; URLs are not opened" if "://" in name else "check the path"
        raise ImageError(f"{name} does not exist", fix) from error
    except PermissionError as error:
        raise ImageError(f"{name} may not be read: permission denied", "change its permissions") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error  # not the whole path a second time
        raise ImageError(f"{name[:200]!r} cannot be opened: {reason}", "check the path") from error


def _identify(stream: _Stream, name: str) -> ImageFile.ImageFile:
    try:
        return Image.open(stream)
    except UnidentifiedImageError as error:
        stream.seek(4)
        if stream.read(8) in (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"):
            raise ImageError(f"{name}: HEIC images are not supported", _COPY_OR_CONVERT) from error
        raise ImageError(f"{name}: not an image that can be read", _COPY_OR_CONVERT) from error


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if not width * height:
        raise ImageError(f"{name}: {width} x {height} is no size of an image", "give 1 x 1 pixels or more")
    if width * height > max_pixels:
        raise ImageError(f"{name}: too large: {width} x {height} exceeds {max_pixels} pixels", _SMALLER)


def _without_filling(image: ImageFile.ImageFile, stream: _Stream) -> ImageFile.ImageFile:
    """The same image, with missing pixels an error although the process told Pillow to paint them grey.

    `LOAD_TRUNCATED_IMAGES` is global (training scripts set it) and other threads may rely on it, so it stays
    as it is; an image's own `load_read` is asked before Pillow looks at the flag.
    """
    if image.format in ("JPEG2000", "ICO", "ICNS"):  # these decoders read for themselves
        raise OSError("its missing pixels cannot be told while ImageFile.LOAD_TRUNCATED_IMAGES is set")
    png_read = None
    if image.format == "PNG":
        image.verify()  # checksums, since the flag also hides errors in the compressed data
        stream.seek(0)
        image = Image.open(stream)
        png_read = getattr(image, "load_read", None)

    def load_read(size: int) -> bytes:
        try:
            # JPEG's own load_read invents an end of image; some formats replace `fp` while they load.
            data: bytes = png_read(size) if png_read else image.fp.read(size)  # type: ignore[union-attr]
        except (IndexError, struct.error):
            data = b""
        if not data:
            raise OSError("image file is truncated")
        return data

    image.load_read = load_read  # type: ignore[attr-defined]
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or the metadata are broken."""
    with suppress(Exception):  # metadata alone never make an image unusable
        # PNG's override would decode all pixels to look for metadata behind them.
        value = Image.Image.getexif(image).get(_ORIENTATION)
        if isinstance(value, int) and 1 <= value <= 8:
            return value
    return 1


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, a copy."""
    if image.mode.startswith(("I", "F")):
        return _grey(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Pillow converts premultiplied grey ("La") to nothing but LA.
    rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or floating-point grey as 8-bit grey, scaled (Pillow's own conversion clips)."""
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
