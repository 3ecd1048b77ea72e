"""Works out how good each setting of a sheet is, over any of its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafv.quality.changes import Change, Moments, change, moments, parts
from adafv.quality.floors import commonest
from adafv.quality.intervals import Floats, Interval, Resampling, interval, ratio
from adafv.quality.markers import MARKERS
from adafv.quality.metrics import called_for
from adafv.quality.reference import Reference
from adafv.quality.sheet import ANSWERED, NO_ANSWER, OTHER, RIGHT_IS_YES, Column, Sheet

FLOOR = "blind"  # the pruner that a setting without the image is reported as
_DIGITS = 6


@dataclass(frozen=True)
class Accuracy:
    """Share of the marks that could be had, over the `questions` that came with an answer and were answered."""

    metric: str
    questions: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class YesNo:
    """Precision, recall and F1 as POPE reports them, yes being positive; `yes_share` is how often yes was said."""

    f1: Interval | None
    precision: Interval | None
    recall: Interval | None
    yes_share: Interval | None


@dataclass(frozen=True)
class Against:
    """The paired difference to another setting than the unpruned."""

    pruner: str
    keep: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """The quality of one setting over some questions.

    `agreement` with the unpruned model counts equal answers after normalisation. `difference` is paired, to the
    unpruned model: of accuracies where answers are known, else the agreement less one; `against` is the same to another
    setting, where one was asked for.
    """

    accuracy: Accuracy | None
    yes_no: YesNo | None
    agreement: Interval | None
    difference: Interval | None
    against: Against | None = None
    change: Change | None = None  # behind `difference`

    @property
    def value(self) -> float | None:
        """Accuracy where answers are known, else agreement."""
        return self.interval.value if self.interval is not None else None

    @property
    def interval(self) -> Interval | None:
        """The interval of `value`."""
        if self.accuracy is None:
            return self.agreement
        return Interval(self.accuracy.value, self.accuracy.low, self.accuracy.high)

    def to_json(self) -> dict[str, Any]:
        """Make a JSON object; what was not asked for is left out."""
        found: dict[str, Any] = plain(asdict(replace(self, change=None)))
        del found["change"]
        if self.against is None:
            del found["against"]
        return found


class Marks:
    """A sheet as arrays."""

    def __init__(self, sheet: Sheet, metric: str, against: Reference | None) -> None:
        self._sheet = sheet
        self._kinds, human = np.asarray(sheet.kinds), np.asarray(sheet.human, dtype=bool)
        states = [np.asarray(column.state) for column in sheet.columns]
        self.rows = np.logical_or.reduce([state != 0 for state in states])
        # Images without an answered question are left out: with only one other image all draws would be equal.
        self.answered = np.logical_or.reduce([state == ANSWERED for state in states])
        self.answered |= np.logical_or.reduce([self._heard(column) for column in sheet.columns])
        known = self.rows & (self._kinds != NO_ANSWER)
        self._yes_no = known & (self._kinds != OTHER)
        counts = int(known.sum()), int(self._yes_no.sum()), int((known & human).sum())
        self.metric = called_for(*counts) if metric == "auto" else metric
        self._marked = self._yes_no if self.metric == "yes-no" else known
        self._images = np.unique(np.asarray(sheet.clusters), return_inverse=True)[1]
        self._references = [against.place(sheet.settings, one) if against else None for one in sheet.settings]

    def qualities(self, rows: NDArray[np.bool_]) -> list[Quality]:
        """Work out the quality of every setting over some rows."""
        columns = self._sheet.columns
        accuracies = self._shares(rows, [self._accuracy(column) for column in columns])
        agreements = self._shares(rows, [self._agreement(column, columns[0]) for column in columns])
        differences = self._changes(rows, [columns[0]] * len(columns))
        others = self._changes(rows, [None if place is None else columns[place] for place in self._references])
        yes_no = self._yes_no_of(rows) if self.metric == "yes-no" else [None] * len(columns)
        found = []
        for place in range(len(columns)):
            accuracy, agreement, change = accuracies[place], agreements[place], differences[place]
            found.append(
                Quality(
                    accuracy=None if accuracy is None else Accuracy(self.metric, accuracy[1], **asdict(accuracy[0])),
                    yes_no=yes_no[place],
                    agreement=None if agreement is None else agreement[0] if place else _certain(agreement[0]),
                    difference=None if change is None else change.interval() if place else Interval(0.0, 0.0, 0.0),
                    against=self._against(place, others[place]),
                    change=change if place else None,
                )
            )
        return found

    def commonest(self, rows: NDArray[np.bool_]) -> float | None:
        """Work out how much of some rows is right by the commonest answer of each group; `None` if unknown."""
        there, rule = rows & self._marked, MARKERS.get(self.metric)
        if not there.any() or (rule is not None and rule.answers is None):
            return None
        return commonest(self._sheet, there, soft=rule is not None or self.metric == "vqa") / float(there.sum())

    def macro(self, groups: Sequence[NDArray[np.bool_]]) -> list[Interval | None]:
        """Average the accuracies, or agreements, of groups of rows: each counts the same, however many rows it has."""
        by_marks, columns = bool(self._marked.any()), self._sheet.columns
        marks = [self._accuracy(one) if by_marks else self._agreement(one, columns[0]) for one in columns]
        weighted = []
        for score, there in marks:
            weights = np.zeros(len(there))
            for rows in groups:
                if count := there[rows].sum():
                    weights[rows] = 1 / count
            weighted.append((score * weights, there * weights))
        every = np.logical_or.reduce(groups) if groups else np.zeros(len(self.rows), dtype=bool)
        return [None if found is None else found[0] for found in self._shares(every, weighted)]

    def _shares(self, rows: NDArray[np.bool_], found: list[tuple[Floats, Floats]]) -> list[tuple[Interval, int] | None]:
        """Enclose the mean of marks (rows,) over those that count (rows,), for each setting; with how many count."""
        nothing = np.zeros(int(rows.sum()))
        missing = [moments(self._images[rows], nothing, (there - score)[rows], there[rows]) for score, there in found]
        made: list[tuple[Interval, int] | None] = []
        for wrong, (_, there) in zip(parts(missing), found, strict=True):
            if wrong is None:
                made.append(None)
            else:
                right = Interval(1 - wrong.share, 1 - wrong.upper(), 1 - wrong.lower())
                made.append((right, int(there[rows].sum())))
        return made

    def _changes(self, rows: NDArray[np.bool_], references: Sequence[Column | None]) -> list[Change | None]:
        """Compare every setting with its reference: by marks where answers are known, else by agreement."""
        by_marks, found = bool(self._marked.any()), list[Moments | None]()
        for column, reference in zip(self._sheet.columns, references, strict=True):
            if reference is None:
                found.append(None)
                continue
            agrees, both = self._agreement(column, reference)
            gain, there = agrees - both, both
            if by_marks:
                there = (self._marked & self._heard(column) & self._heard(reference)).astype(np.float64)
                gain = (self._score(column) - self._score(reference)) * there
            found.append(moments(self._images[rows], *(one[rows] for one in (gain.clip(0), (-gain).clip(0), there))))
        return [None if one is None else change(one, gains=by_marks) for one in found]

    def _against(self, place: int, change: Change | None) -> Against | None:
        reference = self._references[place]
        if change is None or reference is None:
            return None
        pruner, keep, *_ = self._sheet.settings[reference]
        return Against(pruner, keep, **asdict(change.interval()))

    def _accuracy(self, column: Column) -> tuple[Floats, Floats]:
        there = (self._marked & self._heard(column)).astype(np.float64)
        return self._score(column) * there, there

    def _heard(self, column: Column) -> NDArray[np.bool_]:
        """Tell of which questions there are all answers that make a mark."""
        return np.asarray(column.heard) >= np.asarray(self._sheet.needed)

    def _agreement(self, column: Column, other: Column) -> tuple[Floats, Floats]:
        both = (np.asarray(column.state) == ANSWERED) & (np.asarray(other.state) == ANSWERED)
        agrees = both & (np.asarray(column.said) == np.asarray(other.said))
        return agrees.astype(np.float64), both.astype(np.float64)

    def _score(self, column: Column) -> Floats:
        if self.metric == "yes-no":
            right: NDArray[np.bool_] = np.asarray(column.said_yes, dtype=bool) == (self._kinds == RIGHT_IS_YES)
            return right.astype(np.float64)
        return np.asarray(column.vqa if self.metric == "vqa" else column.exact, dtype=np.float64)

    def _yes_no_of(self, rows: NDArray[np.bool_]) -> list[YesNo | None]:
        """Work out POPE's measures; the draws are the same for all settings."""
        draws, found = Resampling(self._images[rows]), list[YesNo | None]()
        for column in self._sheet.columns:
            right, said = self._kinds == RIGHT_IS_YES, np.asarray(column.said_yes, dtype=bool)
            asked = self._yes_no & (np.asarray(column.state) == ANSWERED)
            kinds = [asked & right & said, asked & ~right & said, asked & right & ~said, asked & ~right & ~said]
            found.append(_yes_no(*draws.sums(np.stack(kinds, axis=1)[rows].astype(np.float64)).T))
        return found


def _certain(agreement: Interval) -> Interval:
    """Take the chance out of how the unpruned model agrees with itself."""
    return Interval(agreement.value, agreement.value, agreement.value)


def _yes_no(true_yes: Floats, false_yes: Floats, false_no: Floats, true_no: Floats) -> YesNo:
    said, everything = true_yes + false_yes, true_yes + false_yes + false_no + true_no
    return YesNo(
        f1=interval(ratio(2 * true_yes, 2 * true_yes + false_yes + false_no)),
        precision=interval(ratio(true_yes, said)),
        recall=interval(ratio(true_yes, true_yes + false_no)),
        yes_share=interval(ratio(said, everything)),
    )


def plain(value: Any) -> Any:
    """Write a value as JSON has it, with six digits."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return round(value, _DIGITS) if isinstance(value, float) else value
