"""Reads the answers that an earlier run left: which are good, which are to be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from adafv.budget import Budget
from adafv.errors import InputError
from adafv.pruners import FLOOR
from adafv.records import QuestionId
from adafv.settings import RunSettings
from adafv_cli.work.lines import id_key, key_of

_BEGINNING = b'{"question_id": '
_OURS = {"question_id", "text", "model_id"}
_OF_SWEEPS = ("none", FLOOR)  # in every sweep, and asked with all tiles and no crop's budget
_MEASURED = {"prompt", "pruner", "keep", "tokens", "latency_s", "flops", "memory_bytes", "error"}


class Setting(NamedTuple):
    """Names the settings of an answer, as the answer itself does."""

    pruner: str
    keep: str
    positions: str = "compact"
    select: str = "question"

    @classmethod
    def of(cls, run: RunSettings) -> Setting:
        """Name the settings of a run."""
        named = run.named
        return cls(run.pruner, run.budget.text, named["positions"] or "compact", named["select"] or "question")

    def keeping(self, keep: Budget | None) -> Setting:
        """Change the budget to a line's own, where it has one, as `RunSettings.keeping` does."""
        return self if keep is None or self.pruner in ("none", FLOOR) else self._replace(keep=keep.text)


class Subject(NamedTuple):
    """What an answer is about, in keys of 64 bits: its question, its image by name and by content, and its budget."""

    text: int
    name: int
    content: int
    keep: int

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Subject:
        """Make the keys of an answer as it was read."""
        image = answer["image"]
        about = (str(answer.get("prompt")), str(image["name"]), image["key"], str(answer.get("keep")))
        return cls(*map(key_of, about))


@dataclass(frozen=True)
class Keys:
    """By what the answers of a file are told apart.

    Args:
        repeated_ids: several may share an id as long as their questions differ.
        settings: and as long as pruner, budget, positions or select differ: a sweep's.
        positions: of pruned answers that do not say, as older versions wrote them.
    """

    repeated_ids: bool = False
    settings: bool = False
    positions: str = "compact"

    def key(self, question_id: QuestionId, text: str, setting: Setting) -> int:
        """Hash what tells an answer apart to 64 bits."""
        return id_key(question_id, *((text,) if self.repeated_ids else ()), *(setting if self.settings else ()))

    def of(self, answer: Mapping[str, Any]) -> int:
        """Make the key of an answer as it was read."""
        return self.key(answer["question_id"], str(answer.get("prompt")), self.setting(answer))

    def setting(self, answer: Mapping[str, Any]) -> Setting:
        """Name the settings of an answer as it was read."""
        found = Setting(str(answer.get("pruner")), str(answer.get("keep")))
        if found.pruner == "none":
            return found
        positions, select = answer.get("positions") or self.positions, answer.get("select") or found.select
        return found._replace(positions=positions, select=select)


@dataclass
class Found:
    """What a file of answers holds.

    Args:
        done: of answered lines, key of the id to what the answer is about.
        failed: lines with an error.
        repeated: answers beyond the first to one id.
        good_bytes: the length without a torn last line.
        torn_bytes: the length of that.
        first: the first answer, of a sweep the first pruned one; without `keep` where others have another one, as lines
            may have their own.
        last: the id of the last whole line, as JSON.
        places: of a sweep's answered lines, key of the id to where in the file.
    """

    done: dict[int, Subject] = field(default_factory=dict)
    failed: int = 0
    repeated: int = 0
    good_bytes: int = 0
    torn_bytes: int = 0
    first: dict[str, Any] | None = None
    last: str = ""
    places: dict[int, int] = field(default_factory=dict)


def read(path: Path, keys: Keys) -> Found:
    """Look through a file of answers once; of each line, only a few keys of 64 bits are kept.

    Raises:
        InputError: a whole line that is no answer, or does not say of which image, ids that were used more than once,
            or answers of a sweep.
    """
    found = Found()
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.endswith(b"\n"):
                if not found.last and not _is_begun(raw):
                    raise _foreign(number, path, keys)
                found.torn_bytes = len(raw)
                break
            if raw.strip():
                _note(_answer(raw, number, path, keys), found, path, keys)
            found.good_bytes += len(raw)
    return found


def copy_good(old: BinaryIO, new: BinaryIO, keys: Keys) -> None:
    """Copy the first good answer to each id, byte for byte."""
    kept: set[int] = set()
    for raw in old:
        if not raw.endswith(b"\n") or not raw.strip():
            continue
        answer = json.loads(raw)
        key = keys.of(answer)
        if answer.get("error") is None and key not in kept:
            kept.add(key)
            new.write(raw)


def _answer(raw: bytes, number: int, path: Path, keys: Keys) -> dict[str, Any]:
    """Read an answer of ours; any other line means that the file is something else, and not to be touched."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    needed = _OURS | _MEASURED if keys.settings else _OURS
    if not isinstance(found, dict) or not needed <= found.keys():
        raise _foreign(number, path, keys)
    if found.get("error") is None and not _says_of_which_image(found):
        what = f"-o: line {number} of {path} does not say which image it is about, so that it could be of another one"
        raise InputError(what, "it is of an older version: write to another file, or replace this one with --force")
    return found


def _is_begun(raw: bytes) -> bool:
    """Tell whether a file's only line, which has no end, may be the beginning of an answer; a crash can leave zeros."""
    return raw.startswith(_BEGINNING) or _BEGINNING.startswith(raw.rstrip(b"\0"))


def _foreign(number: int, path: Path, keys: Keys) -> InputError:
    command = "sweep" if keys.settings else "batch"
    what = f"-o: line {number} of {path} is no answer of `adafv {command}`, so the file is left as it is"
    return InputError(what, "give the -o of the run that is to go on, or delete that line")


def _says_of_which_image(answer: Mapping[str, Any]) -> bool:
    image = answer.get("image")
    return isinstance(image, dict) and "name" in image and isinstance(image.get("key"), str)


def _note(answer: dict[str, Any], found: Found, path: Path, keys: Keys) -> None:
    """Count an answer.

    Raises:
        InputError: it is one that this kind of run does not write.
    """
    found.last = json.dumps(answer["question_id"])
    if answer.get("error") is not None:
        found.failed += 1
        return
    key, subject = keys.of(answer), Subject.of(answer)
    before = found.done.get(key, subject)
    if found.first is None or (keys.settings and found.first.get("pruner") in _OF_SWEEPS):
        found.first = answer
    first = found.first
    if not keys.settings and (answer.get("pruner") != first.get("pruner") or subject.keep != before.keep):
        what = f"-o: {path.name} has answers under several settings"
        raise InputError(what, "go on as it was begun: with `adafv sweep`")
    if answer.get("keep") != first.get("keep"):
        first.pop("keep", None)
    if key not in found.done:
        found.done[key] = subject
        if keys.settings:
            found.places[key] = found.good_bytes
        return
    found.repeated += 1
    if before.text != subject.text:
        what = f"-o: {path.name} has answers to different questions with question_id {found.last}"
        raise InputError(what, "go on as it was begun: with --repeated-ids")
    if before.content != subject.content:
        what = f"-o: {path.name} has answers about different images with question_id {found.last}"
        raise InputError(what, "write to another file, or replace this one with --force")
