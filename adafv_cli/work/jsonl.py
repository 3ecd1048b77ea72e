"""JSONL: lines of bytes in, questions out; whatever is wrong with a line stays with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from adafv.errors import InputError
from adafv_cli.work.addresses import Address
from adafv_cli.work.fields import line_of, short
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


def parse(number: int, raw: bytes | None, folder: Path | Address) -> Line:
    """Read one line; whatever is wrong with it becomes its `failure`.

    Args:
        number: the line's.
        raw: its bytes, `None` when it was too long to be read.
        folder: what relative image paths are relative to.
    """
    return line_of(number, partial(_object, raw), folder)


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
        raise InputError(f"the line is no JSON object but {short(found)}", hint)
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
