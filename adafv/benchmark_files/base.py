"""What a benchmark's format is, and how its files are read: every error names the file, the place and the key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adafv.errors import InputError, cut, shown

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."

Row = tuple[int, dict[str, Any]]
"""Place in the file, from 1, and the question with the keys of an input line; the rest is metadata."""


@dataclass(frozen=True)
class Benchmark:
    """The form of one benchmark's files.

    Args:
        name: as users call it.
        read: `(questions, answers)`, gives the rows of a file or folder of questions; `answers` are the annotations
            where they are kept apart. Raises `InputError` for what is not of this form.
        metric: the official rule, one of `adafv.quality.metrics.METRICS`.
        suffix: the instruction that LLaVA's evaluation appends to every question.
        by: the key that its results are told apart by.
        submission: makes the file that its server takes of answers as they are written; `None` where none is needed.
        kind: the ending of that file.
    """

    name: str
    read: Callable[[Path, Path | None], Iterator[Row]]
    metric: str
    suffix: str
    by: str | None = None
    submission: Callable[[Iterable[Mapping[str, Any]]], bytes] | None = None
    kind: str = ".json"


def asked(text: str, own: str, suffix: str | None) -> str:
    """Put an instruction behind a question that may have the benchmark's own already.

    Args:
        text: as it is in the file.
        own: the benchmark's instruction.
        suffix: what is wanted instead; `None` for the benchmark's own.
    """
    question = text.strip().removesuffix(own).rstrip()
    wanted = own if suffix is None else suffix
    return f"{question}\n{wanted}" if wanted else question


def loaded(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {cut(str(error))}", "give the file as it was published") from None


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a file of JSON objects, one a line, or one array of them, with their places.

    Raises:
        InputError: it cannot be read, or a place holds no object.
    """
    content = _content(path)
    listed: list[Any] = loaded(path) if content.lstrip().startswith("[") else content.split("\n")
    for number, one in enumerate(listed, start=1):
        if isinstance(one, str) and not one.strip():
            continue
        try:
            found = json.loads(one) if isinstance(one, str) else one
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InputError(f"{path}: {number}: {shown(one)} is no JSON object", "give the file as it was published")
        yield number, found


def value(found: Mapping[str, Any], key: str, kind: type | tuple[type, ...], path: Path, place: object) -> Any:
    """Take a value that has to be there.

    Raises:
        InputError: it is missing, or of another type.
    """
    if key not in found:
        raise InputError(f"{path}: {place}: there is no {key!r}", "is this the file of that benchmark?")
    if not isinstance(found[key], kind) or isinstance(found[key], bool):
        raise InputError(f"{path}: {place}: {key}: {shown(found[key])} is not of the form", "give it as published")
    return found[key]


def matching(found: Mapping[Any, Any], key: Any, path: Path | None, place: str) -> Any:
    """Look up the annotation of a question.

    Raises:
        InputError: there is none.
    """
    if key not in found:
        what = f"{place}: {path} has no annotation of {shown(key)}"
        raise InputError(what, "give the annotations of the same split with --answers")
    return found[key]


def without(text: str, *instructions: str) -> str:
    """Take instructions off the end of a question."""
    for instruction in instructions:
        text = text.strip().removesuffix(instruction)
    return text.strip()


def json_bytes(made: Any) -> bytes:
    """Write a submission as JSON."""
    return json.dumps(made, ensure_ascii=False).encode()


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    except ValueError:
        raise InputError(f"{path} is not UTF-8 text", "give the file as it was published") from None
