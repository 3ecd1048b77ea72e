"""Addresses of files, as Ray's data sets take them; images by theirs (`s3://`, `gs://`, `hdfs://`, `file://`)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from adafv.errors import ImageError, cut, shown

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")


def scheme_of(text: str) -> str | None:
    """Read what comes before the `://` of an address; `None` for a path."""
    found = _SCHEME.match(text)
    return None if found is None else found[1]


def address_of(text: str) -> str | None:
    """Read an address of an image; `None` for a path, and for what is read otherwise."""
    return None if scheme_of(text) in (None, "http", "https", "data") else text


def opened(image: Any) -> Any:
    """Read the bytes of an image that is given by an address; anything else stays as it is.

    Raises:
        ImageError: it cannot be read, or pyarrow is missing.
    """
    address = address_of(image) if isinstance(image, str) else None
    if address is None:
        return image
    if find_spec("pyarrow") is None:
        raise ImageError(f"{shown(address)} needs pyarrow", "pip install 'adafv[ray]'")
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(address)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())
    except Exception as error:  # each filesystem has its own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ImageError(f"{cut(address)}: {cut(said)}", "check the address and the access to it") from None
