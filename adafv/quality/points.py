"""Makes points of the quality/cost curve of a sheet: one for each setting, with intervals, the unpruned beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafv.quality.intervals import Floats, Interval, Resampling, interval, ratio
from adafv.quality.metrics import called_for
from adafv.quality.sheet import ANSWERED, FAILED, NO_ANSWER, OTHER, RIGHT_IS_YES, Column, Sheet

_DIGITS = 6
_MOST_GROUPS = 40
_AT_ONCE = 2**25  # values held in memory


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
class Quality:
    """The quality of one setting over some questions.

    `agreement` with the unpruned model counts equal answers after normalisation. `difference` is paired, to the
    unpruned model: of accuracies where answers are known, else the agreement less one.
    """

    accuracy: Accuracy | None
    yes_no: YesNo | None
    agreement: Interval | None
    difference: Interval | None

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


@dataclass(frozen=True)
class Point:
    """One setting: `questions` answered and `failed`, quality, and cost as means, of times medians."""

    pruner: str
    keep: str
    questions: int
    failed: int
    quality: Quality
    tokens: dict[str, float] | None
    flops: dict[str, float] | None
    latency_s: dict[str, float] | None
    questions_per_s: float | None
    memory_bytes: dict[str, float] | None
    recommended: bool = False
    groups: dict[str, Quality] | None = None

    @property
    def is_unpruned(self) -> bool:
        """Whether this is the model as it was."""
        return self.pruner == "none"

    def to_json(self) -> dict[str, Any]:
        """Make a JSON object in the documented key order."""
        found: dict[str, Any] = _plain(asdict(replace(self, groups=None)))
        quality = found.pop("quality")
        head = {name: found.pop(name) for name in ("pruner", "keep", "questions", "failed")}
        found.pop("groups")
        if self.groups is not None:
            found["groups"] = {name: _plain(asdict(one)) for name, one in self.groups.items()}
        return {**head, **quality, **found}


def points(sheet: Sheet, metric: str = "auto") -> list[Point]:
    """Sum up every setting of a sheet, in its order; none before there is an answer.

    Args:
        sheet: with the unpruned model in its first column.
        metric: of `metrics.METRICS`; `auto` is the one that the data calls for.
    """
    with sheet.lock:
        return _points(sheet, metric)


def _points(sheet: Sheet, metric: str) -> list[Point]:
    marks = _Marks(sheet, metric)
    if not marks.rows.any():
        return []
    overall = marks.qualities(marks.answered)
    groups = {name: marks.qualities(rows) for name, rows in _groups(sheet, marks.answered).items()}
    found = []
    for place, (setting, column) in enumerate(zip(sheet.settings, sheet.columns, strict=True)):
        state, costs = np.asarray(column.state), column.costs
        found.append(
            Point(
                *setting,
                questions=int((state == ANSWERED).sum()),
                failed=int((state == FAILED).sum()),
                quality=overall[place],
                tokens=costs.means("tokens"),
                flops=costs.means("flops"),
                latency_s=costs.medians(),
                questions_per_s=costs.questions_per_s(),
                memory_bytes=costs.means("memory_bytes"),
                groups=None if sheet.by is None else {name: group[place] for name, group in groups.items()},
            )
        )
    return found


def _groups(sheet: Sheet, rows: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Group the answered rows by name; of very many groups, those with the most questions."""
    if sheet.by is None:
        return {}
    names, numbers = list(sheet.group_names), np.asarray(sheet.groups)
    sizes = np.bincount(numbers[rows], minlength=len(names))
    largest = sorted(np.argsort(-sizes, kind="stable")[:_MOST_GROUPS], key=lambda number: names[number])
    return {names[number]: rows & (numbers == number) for number in largest if sizes[number]}


class _Marks:
    """A sheet as matrices."""

    _COLUMNS = 10  # statistics of a setting that are summed up

    def __init__(self, sheet: Sheet, metric: str) -> None:
        self._sheet = sheet
        self._kinds, human = np.asarray(sheet.kinds), np.asarray(sheet.human, dtype=bool)
        states = [np.asarray(column.state) for column in sheet.columns]
        self.rows = np.logical_or.reduce([state != 0 for state in states])
        # Images without an answered question are left out: with only one other image all draws would be equal.
        self.answered = np.logical_or.reduce([state == ANSWERED for state in states])
        known = self.rows & (self._kinds != NO_ANSWER)
        self._yes_no = known & (self._kinds != OTHER)
        counts = int(known.sum()), int(self._yes_no.sum()), int((known & human).sum())
        self.metric = called_for(*counts) if metric == "auto" else metric
        self._marked = self._yes_no if self.metric == "yes-no" else known
        self._clusters = np.asarray(sheet.clusters)

    def qualities(self, rows: NDArray[np.bool_]) -> list[Quality]:
        """Work out the quality of every setting over some rows; the draws are the same for all of them."""
        columns, found = self._sheet.columns, []
        draws, most = Resampling(self._clusters[rows]), max(1, _AT_ONCE // (self._COLUMNS * max(1, int(rows.sum()))))
        for first in range(0, len(columns), most):
            some = columns[first : first + most]
            values = np.hstack([self._values(column, columns[0])[rows] for column in some])
            parts = np.split(draws.sums(values), len(some), axis=1)
            found += [
                self._quality(part, draws.clusters, column is columns[0])
                for part, column in zip(parts, some, strict=True)
            ]
        return found

    def _values(self, column: Column, whole: Column) -> Floats:
        """List what has to be summed up for one setting: (rows, 10)."""
        answered = np.asarray(column.state) == ANSWERED
        both = answered & (np.asarray(whole.state) == ANSWERED)
        agrees = both & (np.asarray(column.said) == np.asarray(whole.said))
        score, marked = self._score(column), self._marked & answered
        paired = both & self._marked
        gain = score - self._score(whole)
        right, said = self._kinds == RIGHT_IS_YES, np.asarray(column.said_yes, dtype=bool)
        asked = self._yes_no & answered
        kinds = [asked & right & said, asked & ~right & said, asked & right & ~said, asked & ~right & ~said]
        found = [score * marked, marked, agrees, both, gain * paired, paired, *kinds]
        return np.stack(found, axis=1).astype(np.float64)

    def _score(self, column: Column) -> Floats:
        if self.metric == "yes-no":
            right: NDArray[np.bool_] = np.asarray(column.said_yes, dtype=bool) == (self._kinds == RIGHT_IS_YES)
            return right.astype(np.float64)
        return np.asarray(column.vqa if self.metric == "vqa" else column.exact, dtype=np.float64)

    def _quality(self, sums: Floats, clusters: int, whole: bool) -> Quality:
        """Work out a quality from sums over the draws; the `whole` model agrees with itself, and that is no finding."""
        score, marked, agrees, both, gain, paired, *kinds = sums.T
        accuracy = interval(ratio(score, marked), clusters, floor=1.0, ceiling=0.0)
        agreed, known = ratio(agrees, both), self._marked.any()
        if whole:
            agreement, difference = interval(agreed), interval(agreed - 1)
        else:
            agreement = interval(agreed, clusters, floor=1.0, ceiling=0.0)
            difference = interval(agreed - 1, clusters, floor=0.0, ceiling=-1.0)
            if known:
                difference = interval(ratio(gain, paired), clusters, floor=0.0, ceiling=0.0)
        return Quality(
            accuracy=None if accuracy is None else Accuracy(self.metric, int(marked[0]), **asdict(accuracy)),
            yes_no=_yes_no(*kinds) if self.metric == "yes-no" else None,
            agreement=agreement,
            difference=difference,
        )


def _yes_no(true_yes: Floats, false_yes: Floats, false_no: Floats, true_no: Floats) -> YesNo:
    said, everything = true_yes + false_yes, true_yes + false_yes + false_no + true_no
    return YesNo(
        f1=interval(ratio(2 * true_yes, 2 * true_yes + false_yes + false_no)),
        precision=interval(ratio(true_yes, said)),
        recall=interval(ratio(true_yes, true_yes + false_no)),
        yes_share=interval(ratio(said, everything)),
    )


def _plain(value: Any) -> Any:
    """Write a value as JSON has it, with six digits."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return round(value, _DIGITS) if isinstance(value, float) else value
