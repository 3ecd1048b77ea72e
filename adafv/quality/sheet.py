"""The answers of a sweep, marked as they come: a few numbers for each question and setting, no texts."""

from __future__ import annotations

import hashlib
import json
import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adafv.quality.costs import Costs
from adafv.quality.markers import MARKERS
from adafv.quality.metrics import Accepted, accepted, mark, soft_vqa
from adafv.quality.normalisation import normalise

COMPACT, QUESTION = "compact", "question"  # positions and select that go without saying
NOT_THERE, FAILED, ANSWERED = 0, 1, 2  # states of a cell
NO_ANSWER, WRONG_IS_YES, RIGHT_IS_YES, OTHER = range(4)  # kinds of a question: what came with it

_MOST_ROTATIONS = 100  # more are nonsense


@dataclass
class Column:
    """One setting: a cell for each question; `heard` counts a question's answers, and of a round its failures, too."""

    state: array[int] = field(default_factory=lambda: array("b"))
    exact: array[float] = field(default_factory=lambda: array("f"))
    vqa: array[float] = field(default_factory=lambda: array("f"))
    said_yes: array[int] = field(default_factory=lambda: array("b"))
    said: array[int] = field(default_factory=lambda: array("Q"))
    heard: array[int] = field(default_factory=lambda: array("l"))
    costs: Costs = field(default_factory=Costs)


@dataclass
class AcceptedAnswers:
    """What would be right, of all questions: keys of 64 bits, what each is worth by its rule, and to which."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    worth: array[float] = field(default_factory=lambda: array("f"))
    questions: array[int] = field(default_factory=lambda: array("l"))

    def add(self, number: int, worth: Mapping[str, float]) -> None:
        """Take in the answers to question `number`, and what each is worth."""
        for answer, value in worth.items():
            self.keys.append(_key(answer))
            self.worth.append(value)
            self.questions.append(number)


class Sheet:
    """Takes questions in the order of the input, and their answers in any order; may be used by several threads.

    Args:
        settings: (pruner, keep, positions, select) of each column, the unpruned first; the last two may be left out.
        by: a key of the questions' metadata by whose value they are grouped.
        metric: how answers are marked; a rule of `adafv.quality.markers` takes the place of `exact`. With `mmbench`,
            questions with one value of `circular` are one, asked again with its options rotated: right where all are.
            It counts when all were asked: as many as `rotations` says, where it does.

    Whoever reads its columns holds `lock`.
    """

    def __init__(self, settings: Sequence[tuple[str, ...]], by: str | None = None, metric: str = "auto") -> None:
        self.settings, self.by = list(settings), by
        self.columns = [Column() for _ in settings]
        self.kinds, self.human = array("b"), array("b")
        self.needed = array("l")  # answers, until a question counts
        self.clusters, self.groups = array("Q"), array("l")
        self.group_names: dict[str, int] = {}
        self.has_groups = False  # whether a question came with the key
        self.answers = AcceptedAnswers()
        self._accepted: dict[int, Any] = {}
        self._marker, self._circular = MARKERS.get(metric), metric == "mmbench"
        self._rounds: dict[str, int] = {}  # the first question of each round of rotations
        self._first: dict[int, int] = {}
        self._turns: dict[int, int] = {}  # rotations that came
        self._open: dict[int, int] = {}
        self._places = {(*setting, COMPACT, QUESTION)[:4]: place for place, setting in enumerate(settings)}
        self.lock = threading.Lock()

    def question(self, image: int, metadata: Mapping[str, Any]) -> int:
        """Add a question, and return its number.

        Args:
            image: 64 bits, equal for questions about one image.
            metadata: what the question came with.
        """
        right = accepted(metadata) if self._marker is None else self._marker.reference(metadata)
        with self.lock:
            number = len(self.kinds)
            known = right if self._marker is None else None if right is None else Accepted(())
            first = self._round(number, metadata)
            self.kinds.append(_kind(known) if first == number else NO_ANSWER)
            self.human.append(known is not None and known.human)
            self.needed.append(1)
            if number in self._first:
                self._turns[first] = self._turns.get(first, 0) + 1
                self.needed[first] = max(self.needed[first], self._turns[first], _rotations(metadata))
            self.clusters.append(image)
            self.groups.append(self._group(metadata))
            for column in self.columns:
                for cells in (column.state, column.exact, column.vqa, column.said_yes, column.said, column.heard):
                    cells.append(0)
                column.exact[number] = float(self._circular)  # until a rotation is answered wrong
            if right is not None:
                self._accepted[number] = right
                self.answers.add(number, self._worth(right))
            self._open[number] = len(self.columns)
        return number

    def add(self, number: int, line: Mapping[str, Any]) -> None:
        """Add an answer to question `number`, as the line that is written of it; its setting must be a column's."""
        with self.lock:
            unsaid = (line.get("positions") or COMPACT, line.get("select") or QUESTION)
            column = self.columns[self._places[line["pruner"], line["keep"], *unsaid]]
            text, right = line["text"], self._accepted.get(number)
            if line.get("error") is not None or text is None:
                column.state[number] = FAILED
            else:
                column.state[number] = ANSWERED
                column.said[number] = _key(normalise(text))
                column.costs.add(line)
                if self._marker is not None and right is not None:
                    self._keep(column, number, self._marker.mark(text, right))
                elif right is not None:
                    found = mark(text, right)
                    column.exact[number], column.vqa[number] = found.exact, found.vqa
                    column.said_yes[number] = found.said_yes
            if column.state[number] == FAILED:
                self._keep(column, number, 0.0)
            if column.state[number] == ANSWERED or number in self._first:
                column.heard[self._first.get(number, number)] += 1
            self._open[number] -= 1
            if not self._open[number]:
                del self._open[number]
                self._accepted.pop(number, None)

    @property
    def images(self) -> int:
        """Different ones that a question was answered about."""
        with self.lock:
            asked = zip(self.clusters, *(column.state for column in self.columns), strict=True)
            return len({image for image, *states in asked if ANSWERED in states})

    def _worth(self, right: Any) -> dict[str, float]:
        """Work out what each answer to a question is worth."""
        if self._marker is None:
            return {answer: soft_vqa(answer, right.answers) for answer in right.answers}
        said = [] if self._marker.answers is None else self._marker.answers(right)
        return {answer: self._marker.mark(answer, right) for answer in said}

    def _round(self, number: int, metadata: Mapping[str, Any]) -> int:
        """Find the first question of the round that a question belongs to: itself, but for rotations."""
        if not self._circular or "circular" not in metadata:
            return number
        return self._first.setdefault(number, self._rounds.setdefault(json.dumps(metadata["circular"]), number))

    def _keep(self, column: Column, number: int, mark: float) -> None:
        """Keep the least mark of a round."""
        first = self._first.get(number, number)
        column.exact[first] = min(column.exact[first], mark) if self._circular else mark

    def _group(self, metadata: Mapping[str, Any]) -> int:
        if self.by is None:
            return 0
        value = metadata.get(self.by)
        self.has_groups = self.has_groups or value is not None
        name = "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return self.group_names.setdefault(name, len(self.group_names))


def _rotations(metadata: Mapping[str, Any]) -> int:
    found = metadata.get("rotations")
    return min(found, _MOST_ROTATIONS) if isinstance(found, int) else 1


def _kind(right: Accepted | None) -> int:
    if right is None:
        return NO_ANSWER
    if right.yes is None:
        return OTHER
    return RIGHT_IS_YES if right.yes else WRONG_IS_YES


def _key(said: str) -> int:
    """Hash an answer to 64 bits."""
    return int.from_bytes(hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
