"""Reads the answers that an earlier run left: which are good, which are to be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from adafv.errors import InputError
from adafv_cli.jsonl import id_key, text_key


@dataclass
class Found:
    """What a file of answers holds.

    Args:
        done: of answered lines, key of the id to key of the question.
        failed: lines with an error.
        repeated: answers beyond the first to one id.
        good_bytes: the length without a torn last line.
        torn_bytes: the length of that.
        first: the first answer.
        last: the id of the last whole line, as JSON.
    """

    done: dict[int, int] = field(default_factory=dict)
    failed: int = 0
    repeated: int = 0
    good_bytes: int = 0
    torn_bytes: int = 0
    first: dict[str, Any] | None = None
    last: str = ""


def read(path: Path, repeated_ids: bool) -> Found:
    """Look through a file of answers once; of each line, only two keys of 64 bits are kept.

    Raises:
        InputError: a whole line that is no answer, or ids that were used more than once.
    """
    found = Found()
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.endswith(b"\n"):
                found.torn_bytes = len(raw)
                break
            found.good_bytes += len(raw)
            if raw.strip():
                answer = _answer(raw, number, path)
                if _note(answer, found, repeated_ids):
                    continue
                what = f"-o: {path.name} has answers to different questions with question_id {found.last}"
                raise InputError(what, "go on as it was begun: with --repeated-ids")
    return found


def copy_good(old: BinaryIO, new: BinaryIO, repeated_ids: bool) -> None:
    """Copy the first good answer to each id, byte for byte."""
    kept: set[int] = set()
    for raw in old:
        if not raw.endswith(b"\n") or not raw.strip():
            continue
        answer = json.loads(raw)
        key = _key(answer, repeated_ids)
        if answer.get("error") is None and key not in kept:
            kept.add(key)
            new.write(raw)


def _answer(raw: bytes, number: int, path: Path) -> dict[str, Any]:
    """An answer of ours; any other line means that the file is something else, and not to be touched."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"question_id", "text", "model_id"} <= found.keys():
        what = f"-o: line {number} of {path} is no answer of `adafv batch`, so the file is left as it is"
        raise InputError(what, "give the -o of the run that is to go on, or delete that line")
    return found


def _note(answer: dict[str, Any], found: Found, repeated_ids: bool) -> bool:
    """Count an answer; `False` when its id was used for another question."""
    found.last = json.dumps(answer["question_id"])
    if answer.get("error") is not None:
        found.failed += 1
        return True
    key, asked = _key(answer, repeated_ids), text_key(str(answer.get("prompt")))
    if key in found.done:
        found.repeated += 1
        return found.done[key] == asked
    found.done[key] = asked
    found.first = found.first or answer
    return True


def _key(answer: Mapping[str, Any], repeated_ids: bool) -> int:
    return id_key(answer["question_id"], str(answer.get("prompt")) if repeated_ids else "")
