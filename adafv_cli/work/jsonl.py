"""JSONL: lines of bytes in, questions out; whatever is wrong with a line stays with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from adafv.budget import Budget
from adafv.errors import ImageError, InputError, InternalError
from adafv.rows import IDS, TAKEN, TEXTS, named
from adafv_cli.work.lines import Line

MAX_LINE_BYTES = 64 * 2**20

DEEPEST = 700  # levels of nesting: all that is done with a line recurses, and Python stops at 1,000 calls
_BOM = b"\xef\xbb\xbf"
_CHUNK = 2**20


def raw_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines that are not blank; `None` for one longer than `MAX_LINE_BYTES`.

    Each is yielded as soon as its end has been read, and none is held longer than it takes to use it.
    """
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(_CHUNK)
            yield number, None
        elif raw.strip():
            yield number, raw


def parse(number: int, raw: bytes | None, folder: Path) -> Line:
    """Read one line; whatever is wrong with it becomes its `failure`.

    Args:
        number: the line's.
        raw: its bytes, `None` when it was too long to be read.
        folder: what relative image paths are relative to.
    """
    line = Line(number, number)
    try:
        found = _object(raw)
        for step in (_with_id, _with_metadata, _with_text, _with_keep, partial(_with_image, folder=folder)):
            line = step(line, found)
            if line.failure is not None:
                break
    except InputError as error:
        return line.failed(error)
    except Exception as error:  # one line must not end the run, whatever is wrong with it
        return line.failed(InternalError(f"unexpected {type(error).__name__}: {error}", "report it"))
    return line


def _object(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raise InputError(f"the line is longer than {MAX_LINE_BYTES // 2**20} MB", "put the image into a file")
    try:
        found = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InputError(f"the line is not UTF-8: {error.reason} at byte {error.start}", "save it as UTF-8") from None
    except RecursionError:
        raise InputError("the line is nested too deeply", "a line is one flat object") from None
    except ValueError as error:
        hint = "a JSON array becomes lines with: jq -c '.[]'" if raw.lstrip()[:1] == b"[" else "one object a line"
        raise InputError(f"the line is not JSON: {error}", hint) from None
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _depth(found) > DEEPEST:
        raise InputError(f"the line is nested more than {DEEPEST} levels deep", "a line is one flat object")
    if not isinstance(found, dict):
        array = isinstance(found, list)
        hint = "a JSON array becomes lines with: jq -c '.[]'" if array else "one object a line"
        raise InputError(f"the line is no JSON object but {_short(found)}", hint)
    return found


def _depth(value: Any) -> int:
    """Count levels of nesting, without recursion."""
    depth, level = 0, [value]
    while level := [inner for one in level if isinstance(one, dict | list) for inner in _inner(one)]:
        depth += 1
    return depth


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value; use null")


def _with_id(line: Line, found: dict[str, Any]) -> Line:
    name = named(IDS, found)
    question_id = found[name] if name is not None else line.number
    scalar = question_id is None or isinstance(question_id, str | int | float)
    if not scalar or not _writable(question_id):
        return line.failed(InputError(f"{name}: {_short(question_id)} is no id", "an id is a string or a number"))
    return replace(line, question_id=question_id, has_id=True)


def _with_metadata(line: Line, found: dict[str, Any]) -> Line:
    known = {named(IDS, found), named(TEXTS, found), *TAKEN}
    own = found.get("metadata", {})
    metadata = dict(own) if isinstance(own, dict) else {"metadata": own}
    metadata |= {key: value for key, value in found.items() if key not in known}
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
        what = "there is no question" if text is None else f"{name}: {_short(text)} is no question"
        return line.failed(InputError(what, 'give it as "text": "what is this?"'))
    line = replace(line, text=text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return line.failed(InputError(f"{name}: half a surrogate pair in {_short(text)}", "save it as UTF-8"))
    return line


def _with_keep(line: Line, found: dict[str, Any]) -> Line:
    keep = found.get("keep")
    return line if keep is None else replace(line, keep=Budget.parse(keep))


def _with_image(line: Line, found: dict[str, Any], folder: Path) -> Line:
    image = found.get("image")
    if not isinstance(image, str) or not image.strip():
        what = "there is no image" if image is None else f"image: {_short(image)} is no path"
        other = next((key for key in ("image", "images", "video", "videos") if found.get(key)), None)
        if other is not None and (other != "image" or isinstance(image, list)):
            what = f"{other}: {_short(found[other])}: a question is about one image, not about several or a video"
        return line.failed(InputError(what, 'give it as "image": "photo.jpg"'))
    try:
        return replace(line, image=image, source=_source(image, folder))
    except ImageError as error:
        return replace(line, image=image).failed(error)


def _source(image: str, folder: Path) -> str | bytes:
    """Find a path, or the bytes of a data URI.

    Raises:
        ImageError: a web address, or a broken data URI.
    """
    scheme = image[:8].lower()
    if scheme.startswith(("http://", "https://")):
        what = f"image: {image[:200]} is a web address; images are read from files so that a run can be repeated"
        raise ImageError(what, "download it first, and give its path")
    if not scheme.startswith("data:"):
        return str(folder / image)
    header, comma, content = image.partition(",")
    if not comma:
        raise ImageError(f"image: {_short(image)} is no data URI", "it has the form data:image/png;base64,...")
    if not header.lower().endswith(";base64"):
        return unquote_to_bytes(content)
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except ValueError as error:
        raise ImageError(f"image: {_short(image)} is not base64: {error}", "encode it again") from None


def _short(value: Any) -> str:
    """Write a value as messages show it."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
