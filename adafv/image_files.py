"""Image files: opened by an allow-list of formats that Pillow decodes itself; whatever fails is said precisely.

Some of Pillow's readers start another program (EPS runs the `gs` that is first on the PATH), hand over to handlers
that other packages register, or open what is embedded as if it were a file of its own. None of them is ever asked.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from adafv.errors import ImageError, OutOfMemoryError
from adafv.memory import is_out_of_memory

ImageSource = str | os.PathLike[str] | bytes | Image.Image
Stream = io.BytesIO | io.BufferedReader

_AVIF = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()  # since Pillow 11.3
FORMATS = (  # tried in this order; a JPEG of several pictures becomes an MPO
    "PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", *_AVIF, "JPEG2000", "QOI", "PCX", "TGA",
)  # fmt: skip
_OTHERS = (  # where their first bytes are, what they are, and whose
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"\x01\x00\x09\x00", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"<svg", "SVG"),
    (0, b"8BPS", "PSD"),
    (0, b"icns", "ICNS"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyp", "video"),
    (0, b"\x1a\x45\xdf\xa3", "video"),  # Matroska and WebM
    (8, b"AVI ", "video"),
)
_SMALLER = "scale or crop it first; the model sees a small version anyway"
_COPY_OR_CONVERT = "if it is damaged, copy it again; otherwise save it as PNG or JPEG"


def name_of(source: ImageSource) -> str:
    """Name a source as messages do.

    Raises:
        ImageError: nothing that an image can be read from.
    """
    if isinstance(source, bytes):
        return "image bytes"
    if isinstance(source, Image.Image):
        return "image"
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    raise ImageError(f"image: {type(source).__name__} is no image", "give a path, bytes or a PIL image")


@contextmanager
def opened(source: ImageSource, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image, its header read and its size checked.

    Raises:
        ImageError: whatever goes wrong before the block ends.
        OutOfMemoryError: it does not fit into memory.
    """
    name = name_of(source)
    if isinstance(source, Image.Image):
        _check_format(name, source)
        _check_size(name, source.size, max_pixels)
        with explained(name):
            yield source
        return
    with stream_of(source, name) as stream, explained(name):
        image = _identify(stream, name)
        _check_size(name, image.size, max_pixels)
        yield _without_filling(image, stream) if ImageFile.LOAD_TRUNCATED_IMAGES else image


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what Pillow raises into an `ImageError`, or an `OutOfMemoryError` where memory is what lacks."""
    try:
        yield
    except (ImageError, OutOfMemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: too large: {error}", _SMALLER) from error
    except Exception as error:  # damaged files make decoders raise nearly anything
        if is_out_of_memory(error):  # of decoders, too, which raise an OSError that says so
            raise OutOfMemoryError(f"{name}: out of memory while it is decoded", _SMALLER) from error
        raise ImageError(f"{name}: cannot be decoded: {str(error) or repr(error)}", _COPY_OR_CONVERT) from error


def stream_of(source: str | os.PathLike[str] | bytes, name: str) -> Stream:
    """Open an image file, or its bytes, for reading.

    Raises:
        ImageError: missing, unreadable, empty, or no regular file.
    """
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
        if "://" in name and not name.lower().startswith("http"):
            fix = "download it first, or have a cluster read it: adafv batch --engine ray"
        raise ImageError(f"{name} does not exist", fix) from error
    except PermissionError as error:
        raise ImageError(f"{name} may not be read: permission denied", "change its permissions") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error  # not the whole path a second time
        raise ImageError(f"{name[:200]!r} cannot be opened: {reason}", "check the path") from error


def _identify(stream: Stream, name: str) -> ImageFile.ImageFile:
    try:
        return Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        stream.seek(0)
        head = stream.read(64)
        kind = next((kind for start, magic, kind in _OTHERS if head[start:].startswith(magic)), None)
        if kind == "video":
            raise ImageError(f"{name}: a video is no image", "save a frame of it as PNG or JPEG") from error
        if kind is not None and kind not in FORMATS:
            raise ImageError(f"{name}: {kind} images are not supported", "convert it to PNG or JPEG") from error
        raise ImageError(f"{name}: not an image that can be read", _COPY_OR_CONVERT) from error


def _check_format(name: str, image: Image.Image) -> None:
    """Raise `ImageError` if Pillow opened this image by a reader that it would not have been given to here."""
    if isinstance(image, ImageFile.ImageFile) and image.format not in (*FORMATS, "MPO"):
        kind = image.format or type(image).__name__
        fix = 'if you trust it, decode it yourself: image.convert("RGB")'
        raise ImageError(f"{name}: {kind} images are not supported", fix)


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if not width * height:
        raise ImageError(f"{name}: {width} x {height} is no size of an image", "give 1 x 1 pixels or more")
    if width * height > max_pixels:
        raise ImageError(f"{name}: too large: {width} x {height} exceeds {max_pixels} pixels", _SMALLER)


def _without_filling(image: ImageFile.ImageFile, stream: Stream) -> ImageFile.ImageFile:
    """Read the image with missing pixels an error, although the process told Pillow to paint them grey.

    `LOAD_TRUNCATED_IMAGES` is global (training scripts set it) and other threads may rely on it, so it stays
    as it is; an image's own `load_read` is asked before Pillow looks at the flag.
    """
    if image.format in ("JPEG2000", "ICO"):  # these decoders read for themselves
        raise OSError("its missing pixels cannot be told while ImageFile.LOAD_TRUNCATED_IMAGES is set")
    png_read = None
    if image.format == "PNG":
        image.verify()  # checksums, since the flag also hides errors in the compressed data
        stream.seek(0)
        image = Image.open(stream, formats=["PNG"])
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
