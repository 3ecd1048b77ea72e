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
from adafv.quality.metrics import Accepted, accepted, mark, soft_vqa
from adafv.quality.normalisation import normalise

COMPACT = "compact"  # positions that go without saying
NOT_THERE, FAILED, ANSWERED = 0, 1, 2  # states of a cell
NO_ANSWER, WRONG_IS_YES, RIGHT_IS_YES, OTHER = range(4)  # kinds of a question: what came with it


@dataclass
class Column:
    """One setting: a cell for each question."""

    state: array[int] = field(default_factory=lambda: array("b"))
    exact: array[float] = field(default_factory=lambda: array("f"))
    vqa: array[float] = field(default_factory=lambda: array("f"))
    said_yes: array[int] = field(default_factory=lambda: array("b"))
    said: array[int] = field(default_factory=lambda: array("Q"))
    costs: Costs = field(default_factory=Costs)


@dataclass
class AcceptedAnswers:
    """What would be right, of all questions: keys of 64 bits, what each is worth as soft VQA accuracy, and to which."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    worth: array[float] = field(default_factory=lambda: array("f"))
    questions: array[int] = field(default_factory=lambda: array("l"))

    def add(self, number: int, right: Accepted) -> None:
        """Take in the answers to question `number`, each once."""
        for answer in dict.fromkeys(right.answers):
            self.keys.append(_key(answer))
            self.worth.append(soft_vqa(answer, right.answers))
            self.questions.append(number)


class Sheet:
    """Takes questions in the order of the input, and their answers in any order; may be used by several threads.

    Args:
        settings: (pruner, keep) of each column, or (pruner, keep, positions), the unpruned first.
        by: a key of the questions' metadata by whose value they are grouped.

    Whoever reads its columns holds `lock`.
    """

    def __init__(self, settings: Sequence[tuple[str, ...]], by: str | None = None) -> None:
        self.settings, self.by = list(settings), by
        self.columns = [Column() for _ in settings]
        self.kinds, self.human = array("b"), array("b")
        self.clusters, self.groups = array("Q"), array("l")
        self.group_names: dict[str, int] = {}
        self.has_groups = False  # whether a question came with the key
        self.answers = AcceptedAnswers()
        self._accepted: dict[int, Accepted] = {}
        self._open: dict[int, int] = {}
        self._places = {(*setting, COMPACT)[:3]: place for place, setting in enumerate(settings)}
        self.lock = threading.Lock()

    def question(self, image: int, metadata: Mapping[str, Any]) -> int:
        """Add a question, and return its number.

        Args:
            image: 64 bits, equal for questions about one image.
            metadata: what the question came with.
        """
        right = accepted(metadata)
        with self.lock:
            number = len(self.kinds)
            self.kinds.append(_kind(right))
            self.human.append(right is not None and right.human)
            self.clusters.append(image)
            self.groups.append(self._group(metadata))
            for column in self.columns:
                for cells in (column.state, column.exact, column.vqa, column.said_yes, column.said):
                    cells.append(0)
            if right is not None:
                self._accepted[number] = right
                self.answers.add(number, right)
            self._open[number] = len(self.columns)
        return number

    def add(self, number: int, line: Mapping[str, Any]) -> None:
        """Add an answer to question `number`, as the line that is written of it; its setting must be a column's."""
        with self.lock:
            column = self.columns[self._places[line["pruner"], line["keep"], line.get("positions") or COMPACT]]
            text, right = line["text"], self._accepted.get(number)
            if line.get("error") is not None or text is None:
                column.state[number] = FAILED
            else:
                column.state[number] = ANSWERED
                column.said[number] = _key(normalise(text))
                column.costs.add(line)
                if right is not None:
                    found = mark(text, right)
                    column.exact[number], column.vqa[number] = found.exact, found.vqa
                    column.said_yes[number] = found.said_yes
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

    def _group(self, metadata: Mapping[str, Any]) -> int:
        if self.by is None:
            return 0
        value = metadata.get(self.by)
        self.has_groups = self.has_groups or value is not None
        name = "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return self.group_names.setdefault(name, len(self.group_names))


def _kind(right: Accepted | None) -> int:
    if right is None:
        return NO_ANSWER
    if right.yes is None:
        return OTHER
    return RIGHT_IS_YES if right.yes else WRONG_IS_YES


def _key(said: str) -> int:
    """Hash an answer to 64 bits."""
    return int.from_bytes(hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
