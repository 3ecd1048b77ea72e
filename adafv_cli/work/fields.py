"""What the keys of a line or a row mean; whatever is wrong with one becomes its failure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from adafv.budget import Budget
from adafv.errors import ImageError, InputError, InternalError
from adafv.rows import IDS, TEXTS, named, rest
from adafv.spreading.places import address_of
from adafv_cli.work.addresses import Address
from adafv_cli.work.lines import Line

_TURNS = ("messages", "conversations", "conversation", "history")  # how others write several turns


@dataclass(frozen=True)
class Embedded:
    """An image that is held in a table: its bytes, and the name of the file that they came from, where it is known."""

    content: bytes
    name: str | None = None


def line_of(number: int, read: Callable[[], dict[str, Any]], folder: Path | Address) -> Line:
    """Make a line of its keys.

    Args:
        number: the line's.
        read: gives the keys, or raises what is wrong with the line as a whole.
        folder: what relative image paths are relative to.
    """
    line = Line(number, number)
    try:
        found = read()
        for step in (_with_id, _with_metadata, _with_text, _with_keep, partial(_with_image, folder=folder)):
            line = step(line, found)
            if line.failure is not None:
                break
    except InputError as error:
        return line.failed(error)
    except Exception as error:  # one line must not end the run, whatever is wrong with it
        return line.failed(InternalError(f"unexpected {type(error).__name__}: {error}", "report it"))
    return line


def _with_id(line: Line, found: dict[str, Any]) -> Line:
    name = named(IDS, found)
    question_id = found[name] if name is not None else line.number
    if not isinstance(question_id, str | int | float) or not _writable(question_id):
        return line.failed(InputError(f"{name}: {short(question_id)} is no id", "an id is a string or a number"))
    return replace(line, question_id=question_id, has_id=True)


def _with_metadata(line: Line, found: dict[str, Any]) -> Line:
    own = found.get("metadata", {})
    metadata = dict(own) if isinstance(own, dict) else {"metadata": own}
    metadata |= rest(found)
    if not _writable(metadata):
        what = "a number is too large for JSON, or values are nested too deeply"
        return line.failed(InputError(what, "leave them out"))
    return replace(line, metadata=metadata)


def _writable(value: Any) -> bool:
    """Tell whether a value can be written as it was read: 1e999 reads as infinity."""
    try:
        json.dumps([[value]], allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _with_text(line: Line, found: dict[str, Any]) -> Line:
    name = named(TEXTS, found)
    text = found[name] if name is not None else None
    if not isinstance(text, str) or not text.strip():
        what = "there is no question" if text is None else f"{name}: {short(text)} is no question"
        turns = next((key for key in _TURNS if found.get(key)), None)
        if text is None and turns is not None:
            what = f"{turns}: {short(found[turns])}: a question is one turn about one image, not a conversation"
        return line.failed(InputError(what, 'give it as "text": "what is this?"'))
    line = replace(line, text=text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return line.failed(InputError(f"{name}: half a surrogate pair in {short(text)}", "save it as UTF-8"))
    return line


def _with_keep(line: Line, found: dict[str, Any]) -> Line:
    keep = found.get("keep")
    return line if keep is None else replace(line, keep=Budget.parse(keep))


def _with_image(line: Line, found: dict[str, Any], folder: Path | Address) -> Line:
    image = found.get("image")
    if isinstance(image, Embedded):
        name = image.name or f"sha256:{hashlib.sha256(image.content).hexdigest()[:16]}"
        return replace(line, image=name, source=image.content)
    if not isinstance(image, str) or not image.strip():
        what = "there is no image" if image is None else f"image: {short(image)} is no path"
        other = next((key for key in ("image", "images", "video", "videos") if found.get(key)), None)
        if other is not None and (other != "image" or isinstance(image, list)):
            what = f"{other}: {short(found[other])}: a question is about one image, not about several or a video"
        return line.failed(InputError(what, 'give it as "image": "photo.jpg"'))
    try:
        return replace(line, image=image, source=_source(image, folder))
    except ImageError as error:
        return replace(line, image=image).failed(error)


def _source(image: str, folder: Path | Address) -> str | bytes:
    """Find a path, or the bytes of a data URI.

    Raises:
        ImageError: a web address, or a broken data URI.
    """
    scheme = image[:8].lower()
    if scheme.startswith(("http://", "https://")):
        what = f"image: {image[:200]} is a web address; images are read from files so that a run can be repeated"
        raise ImageError(what, "download it first, and give its path")
    if not scheme.startswith("data:"):
        return image if address_of(image) is not None else str(folder / image)
    header, comma, content = image.partition(",")
    if not comma:
        raise ImageError(f"image: {short(image)} is no data URI", "it has the form data:image/png;base64,...")
    if not header.lower().endswith(";base64"):
        return unquote_to_bytes(content)
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except ValueError as error:
        raise ImageError(f"image: {short(image)} is not base64: {error}", "encode it again") from None


def short(value: Any) -> str:
    """Write a value as messages show it."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
