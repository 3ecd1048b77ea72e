"""Makes points of the quality/cost curve of a sheet: one for each setting, with intervals, the unpruned beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafv.quality.intervals import Interval
from adafv.quality.mme import mme_scores
from adafv.quality.qualities import FLOOR, Marks, Quality, plain
from adafv.quality.reference import Reference
from adafv.quality.sheet import ANSWERED, COMPACT, FAILED, QUESTION, Sheet

_MOST_GROUPS = 40


@dataclass(frozen=True)
class Point:
    """One setting: `questions` answered and `failed`, quality, and cost as means, of times medians.

    `macro` is the mean over the groups, of accuracies where answers are known, else of agreements. `headroom` is the
    share of the way from what is right without the image to the unpruned model.
    """

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
    macro: Interval | None = None
    headroom: float | None = None
    groups: dict[str, Quality] | None = None
    positions: str = COMPACT
    select: str = QUESTION
    scores: dict[str, Interval] | None = None  # a benchmark's own, which are no means of marks

    @property
    def name(self) -> str:
        """The pruner, with its positions and its select where they are not the default."""
        others = [one for one in (self.positions, self.select) if one not in (COMPACT, QUESTION)]
        return f"{self.pruner} ({', '.join(others)})" if others else self.pruner

    @property
    def line(self) -> str:
        """The line of a curve that it lies on: budgets that adapt have one of their own."""
        return f"{self.name}, auto" if self.keep.startswith("auto") else self.name

    @property
    def setting(self) -> dict[str, str]:
        """Say of which setting it is, as answers do: positions and select where they are not the default."""
        positions = {} if self.positions == COMPACT else {"positions": self.positions}
        select = {} if self.select == QUESTION else {"select": self.select}
        return {"pruner": self.pruner, "keep": self.keep, **positions, **select}

    @property
    def is_unpruned(self) -> bool:
        """Whether this is the model as it was."""
        return self.pruner == "none"

    @property
    def is_floor(self) -> bool:
        """Whether this is the model without the image."""
        return self.pruner == FLOOR

    def to_json(self) -> dict[str, Any]:
        """Make a JSON object in the documented key order."""
        found: dict[str, Any] = plain(asdict(replace(self, groups=None)))
        del found["quality"]
        counts = {name: found.pop(name) for name in ("questions", "failed")}
        if self.scores is None:
            del found["scores"]
        for name in ("pruner", "keep", "positions", "select", "groups"):
            del found[name]
        for name in ("macro", "headroom"):
            if getattr(self, name) is None:
                del found[name]
        if self.groups is not None:
            found["groups"] = {name: one.to_json() for name, one in self.groups.items()}
        return {**self.setting, **counts, **self.quality.to_json(), **found}


def points(sheet: Sheet, metric: str = "auto", against: Reference | None = None) -> list[Point]:
    """Sum up every setting of a sheet, in its order; none before there is an answer.

    Args:
        sheet: with the unpruned model in its first column.
        metric: of `metrics.METRICS`; `auto` is the one that the data calls for.
        against: a setting that the others are compared with, besides the unpruned.
    """
    with sheet.lock:
        found = _points(sheet, metric, against)
        if metric != "mme" or not found:
            return found
        return [replace(point, scores=scores) for point, scores in zip(found, mme_scores(sheet), strict=True)]


def _points(sheet: Sheet, metric: str, against: Reference | None) -> list[Point]:
    marks = Marks(sheet, metric, against)
    if not marks.rows.any():
        return []
    overall = marks.qualities(marks.answered)
    rows_of = _groups(sheet, marks.answered)
    groups = {name: marks.qualities(rows) for name, rows in rows_of.items()}
    macro = marks.macro(list(rows_of.values())) if sheet.by is not None else [None] * len(overall)
    found = []
    for place, (setting, column) in enumerate(zip(sheet.settings, sheet.columns, strict=True)):
        state, costs = np.asarray(column.state), column.costs
        pruner, keep, positions, select = (*setting, COMPACT, QUESTION)[:4]
        found.append(
            Point(
                pruner,
                keep,
                positions=positions,
                select=select,
                questions=int((state == ANSWERED).sum()),
                failed=int((state == FAILED).sum()),
                quality=overall[place],
                tokens=costs.means("tokens"),
                flops=costs.means("flops"),
                latency_s=costs.medians(),
                questions_per_s=costs.questions_per_s(),
                memory_bytes=costs.means("memory_bytes"),
                macro=macro[place],
                groups=None if sheet.by is None else {name: group[place] for name, group in groups.items()},
            )
        )
    return found


@dataclass(frozen=True)
class Floors:
    """How much is right without looking: by the model without the image, and by the commonest answer of each group."""

    no_image: float | None
    commonest: float | None

    @property
    def highest(self) -> float | None:
        """The one that is harder to beat."""
        return max((one for one in (self.no_image, self.commonest) if one is not None), default=None)


def floors(sheet: Sheet, found: Sequence[Point], metric: str = "auto") -> Floors:
    """Work out the floors of a sweep, of the points of which one may be without the image."""
    blind = next((point.quality.value for point in found if point.is_floor), None)
    with sheet.lock:
        marks = Marks(sheet, metric, None)
        return Floors(blind, marks.commonest(marks.answered))


def with_headroom(found: Sequence[Point], floor: float | None) -> list[Point]:
    """Say of each point how much of the way from the floor to the unpruned model it comes."""
    whole = next((point.quality.value for point in found if point.is_unpruned), None)
    if floor is None or whole is None or whole <= floor:
        return list(found)
    way = whole - floor
    return [
        point if point.quality.value is None else replace(point, headroom=(point.quality.value - floor) / way)
        for point in found
    ]


def _groups(sheet: Sheet, rows: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Group the answered rows by name; of very many groups, those with the most questions."""
    if sheet.by is None:
        return {}
    names, numbers = list(sheet.group_names), np.asarray(sheet.groups)
    sizes = np.bincount(numbers[rows], minlength=len(names))
    largest = sorted(np.argsort(-sizes, kind="stable")[:_MOST_GROUPS], key=lambda number: names[number])
    return {names[number]: rows & (numbers == number) for number in largest if sizes[number]}
