"""The input of a batch: which lines there are, which of them are asked now, and under which id."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from adafv.errors import InputError
from adafv.records import Question
from adafv.spreading.places import address_of
from adafv_cli.exits import UsageError
from adafv_cli.work.earlier import Keys, Setting, Subject
from adafv_cli.work.gathered import Gathered
from adafv_cli.work.lines import Line, content_key_of, id_key, key_of
from adafv_cli.work.shard import Shard
from adafv_cli.work.source import Source

_OWN_ID = "give each line an id of its own, or none"
_NAMED = 5  # missing images
_REMEMBERED = 4_096  # images that are not looked at again
_STAY = (
    "lines must keep their ids (a line without one has its number), images and budgets: "
    "write to another file with -o, or use --force"
)


@dataclass
class Census:
    """What a file holds, found before a model is loaded.

    `lines`, `todo` and their `answers` to come are of this shard, `questions` and `known` of the whole file: the latter
    counts the answers that are there already. `missing` counts questions whose image is not there,
    `first_missing` is one of them, and `missing_names` are the first few images.
    """

    lines: int = 0
    questions: int = 0
    known: int = 0
    todo: int = 0
    answers: int = 0
    missing: int = 0
    first_missing: Line | None = None
    missing_names: list[str] = field(default_factory=list)
    first_failed: Line | None = None


@dataclass
class Questions:
    """The lines of an input that are to be answered.

    Args:
        source: where they come from.
        shard: which of them are ours.
        done: of answers that there are already: their key to what they are about.
        keys: by what answers are told apart.
        settings: what each line is answered under.
        gathered: what is known of their images, where questions choose together.
    """

    source: Source
    shard: Shard = field(default_factory=Shard)
    done: Mapping[int, Subject] = field(default_factory=dict)
    keys: Keys = field(default_factory=Keys)
    settings: Sequence[Setting] = (Setting("", ""),)
    gathered: Gathered | None = None
    lines: int = 0
    skipped: int = 0
    _seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._content_of_file = lru_cache(_REMEMBERED)(content_key_of)
        self._is_gone = lru_cache(_REMEMBERED)(_is_gone)

    def census(self) -> Census:
        """Look through a file once; of each line, only a key of 64 bits is kept.

        Raises:
            InputError: no question in it, or an id that two lines have.
            UsageError: an answer that is there is about another question or image than the line that has its id now.
        """
        found = Census()
        for line in self.source.lines():
            if line.has_id:
                key = self._id(line)
                if key in self._seen:
                    raise self._twice(line)
                self._seen.add(key)
            if line.failure is None:
                found.questions += 1
            elif found.first_failed is None:
                found.first_failed = line
            found.known += len(self._done(line)) if line.has_id else 0
            if self.shard.holds(line):
                self._count(line, found)
        if not found.questions:
            raise no_question(self.source.name, found.first_failed)
        return found

    def _count(self, line: Line, found: Census) -> None:
        found.lines += 1
        other = self._other_subject(line)
        if other is not None:
            what = f"the answer to question_id {line.question_id!r} is {other} than line {line.number}'s"
            raise UsageError(what, _STAY)
        left = self.left(line)
        if not left:
            return
        found.todo += 1
        found.answers += len(left)
        if is_missing(line, self._is_gone):
            found.missing += 1
            found.first_missing = found.first_missing or line
            if line.image not in found.missing_names and len(found.missing_names) < _NAMED:
                found.missing_names.append(line.image)

    def todo(self, stop: threading.Event | None = None) -> Iterator[Line]:
        """Give the lines to answer, in order; those with a `failure` cannot be."""
        return (line for line in self.ours(stop) if self.left(line))

    def ours(self, stop: threading.Event | None = None) -> Iterator[Line]:
        """Give the lines of this shard, in order; those that are answered under every setting count as skipped."""
        for line in self.source.lines(stop):
            self.lines += 1
            line = self._identified(line)
            if self.shard.holds(line):
                self.skipped += not self.left(line)
                yield line

    def in_order(self) -> Iterator[int]:
        """Give the keys of the lines' answers, once all were looked through; none of a pipe's, which is read once."""
        if self.source.file is None:
            return iter(())
        self.census()
        return (self.key(line, setting) for line in self.ours() for setting in self.settings)

    def left(self, line: Line) -> list[Setting]:
        """List the settings under which a line is not answered yet."""
        return [setting for setting in self.asked(line) if self.key(line, setting) not in self.done or not line.has_id]

    def asked(self, line: Line) -> list[Setting]:
        """List the settings that a line is answered under: with its own budget, all others come to the same."""
        return list(dict.fromkeys(setting.keeping(line.keep) for setting in self.settings))

    def question(self, line: Line) -> Question:
        """Make of a line what the library takes."""
        return line.question if self.gathered is None else self.gathered.question(line)

    def key(self, line: Line, setting: Setting) -> int:
        """Make the key of a line's answer."""
        return self.keys.key(line.question_id, line.text, setting)

    def _identified(self, line: Line) -> Line:
        """Make sure that no two lines of the output have one id."""
        if not line.has_id:
            # A pipe may still bring a line that has this number as its id.
            taken = self.source.file is None or self._id(line) in self._seen or self._done(line)
            return self._renamed(line) if taken else line
        if self.source.file is not None:  # the census has seen to it
            return line
        key = self._id(line)
        if key in self._seen:
            what = f"another line has question_id {line.question_id!r}"
            return self._renamed(line.failed(InputError(what, _OWN_ID)))
        self._seen.add(key)
        other = self._other_subject(line)
        if other is not None:
            what = f"the answer to question_id {line.question_id!r} is {other} than this line's"
            return self._renamed(line.failed(InputError(what, _STAY)))
        return line

    def _renamed(self, line: Line) -> Line:
        """Put a line under an id that no other line has."""
        renamed = replace(line, question_id=f"line {line.number}", has_id=False)
        while self._id(renamed) in self._seen:
            renamed = replace(renamed, question_id=f"{renamed.question_id}*")
        self._seen.add(self._id(renamed))
        return renamed

    def _id(self, line: Line) -> int:
        return id_key(line.question_id, *((line.text,) if self.keys.repeated_ids else ()))

    def _done(self, line: Line) -> dict[Setting, Subject]:
        """Tell what the answers are about that the line has already."""
        done = ((setting, self.done.get(self.key(line, setting))) for setting in self.asked(line))
        return {setting: subject for setting, subject in done if subject is not None}

    def _other_subject(self, line: Line) -> str | None:
        """Tell what a line's answers so far are about, if not about this line: `about another image`, say.

        The image's bytes are read but not decoded; one that is not there any more is compared by its name.
        """
        there = self._done(line) if line.has_id else {}
        done = there.values()
        if any(subject.text != key_of(line.text) for subject in done):
            return "to another question"
        if any(subject.keep != key_of(setting.keep) for setting, subject in there.items()):
            return "under another budget"
        content = None
        if done and line.failure is None:  # data URIs are not remembered: they are long, and seldom there twice
            content = (self._content_of_file if isinstance(line.source, str) else content_key_of)(line.source)
        for subject in done:
            same_name = subject.name == key_of(line.image_name)
            if (content is None and not same_name) or content not in (None, subject.content):
                return "about an earlier content of the image" if same_name else "about another image"
        return None

    def _twice(self, second: Line) -> InputError:
        key = self._id(second)
        first = next(line for line in self.source.lines() if line.has_id and self._id(line) == key)
        what = (
            f"{self.source.name}: lines {first.number} and {second.number} both have question_id {second.question_id!r}"
        )
        if first.text != second.text and not self.keys.repeated_ids:
            return InputError(what, "give each its own, or use --repeated-ids, as for TextVQA (one id per image)")
        return InputError(what, _OWN_ID)


def no_question(name: str, failed: Line | None) -> InputError:
    """Make the error of an input that asks nothing; `failed` is its first line that is no question."""
    if failed is None or failed.failure is None:
        return InputError(f"{name} is empty", 'write lines like {"image": "photo.jpg", "text": "what is this?"}')
    what = f"{name} holds no question; line {failed.number}: {failed.failure.message}"
    return InputError(what, failed.failure.fix)


def _is_gone(path: str) -> bool:
    try:
        return address_of(path) is None and not Path(path).exists()
    except (OSError, ValueError):
        return True


def is_missing(line: Line, is_gone: Callable[[str], bool] = _is_gone) -> bool:
    """Tell whether a line asks about an image file that is not there; `is_gone` may remember its answers."""
    return line.failure is None and isinstance(line.source, str) and is_gone(line.source)
