"""Files by the addresses that Ray's data sets take: `s3://`, `gs://`, `hdfs://`, `abfss://`, `file://`, by pyarrow."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from adafv.errors import ImageError, InputError, cut, shown

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")


def address_of(text: str) -> str | None:
    """Read an address, also one that `pathlib` has taken a slash from; `None` for a path."""
    found = _SCHEME.match(text)
    if found is None or found[1] in ("http", "https", "data"):
        return None
    rest = text[found.end() :]
    return f"file:///{rest}" if found[1] == "file" else f"{found[1]}://{rest}"


def located(address: str) -> tuple[Any, str]:
    """Find the filesystem of an address, and the path there.

    Raises:
        InputError: no such filesystem, or pyarrow is missing.
    """
    if find_spec("pyarrow") is None:
        raise InputError(f"{shown(address)} needs pyarrow", "pip install 'adafv[ray]'")
    from pyarrow import fs

    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(address)
    except Exception as error:  # each filesystem has its own
        raise InputError(f"{shown(address)}: {cut(_first_line(error))}", "check the address and its access") from None
    return found


def opened(image: Any) -> Any:
    """Read the bytes of an image that is given by an address; anything else stays as it is.

    Raises:
        ImageError: it cannot be read.
    """
    address = address_of(image) if isinstance(image, str) else None
    if address is None:
        return image
    try:
        filesystem, path = located(address)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    except InputError as error:
        raise ImageError(error.what, error.fix) from None
    except Exception as error:
        raise ImageError(f"{cut(address)}: {cut(_first_line(error))}", "check the address and its access") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
