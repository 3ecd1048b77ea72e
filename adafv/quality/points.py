"""Makes points of the quality/cost curve of a sheet: one for each setting, with intervals, the unpruned beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adafv.quality.qualities import Marks, Quality, plain
from adafv.quality.reference import Reference
from adafv.quality.sheet import ANSWERED, COMPACT, FAILED, Sheet

_MOST_GROUPS = 40


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
    positions: str = COMPACT

    @property
    def name(self) -> str:
        """The pruner, with its positions where they are not the default."""
        return self.pruner if self.positions == COMPACT else f"{self.pruner} ({self.positions})"

    @property
    def setting(self) -> dict[str, str]:
        """Say of which setting it is, as answers do: positions where they are not the default."""
        positions = {} if self.positions == COMPACT else {"positions": self.positions}
        return {"pruner": self.pruner, "keep": self.keep, **positions}

    @property
    def is_unpruned(self) -> bool:
        """Whether this is the model as it was."""
        return self.pruner == "none"

    def to_json(self) -> dict[str, Any]:
        """Make a JSON object in the documented key order."""
        found: dict[str, Any] = plain(asdict(replace(self, groups=None)))
        del found["quality"]
        counts = {name: found.pop(name) for name in ("questions", "failed")}
        for name in ("pruner", "keep", "positions", "groups"):
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
        return _points(sheet, metric, against)


def _points(sheet: Sheet, metric: str, against: Reference | None) -> list[Point]:
    marks = Marks(sheet, metric, against)
    if not marks.rows.any():
        return []
    overall = marks.qualities(marks.answered)
    groups = {name: marks.qualities(rows) for name, rows in _groups(sheet, marks.answered).items()}
    found = []
    for place, (setting, column) in enumerate(zip(sheet.settings, sheet.columns, strict=True)):
        state, costs = np.asarray(column.state), column.costs
        pruner, keep, *rest = setting
        found.append(
            Point(
                pruner,
                keep,
                positions=rest[0] if rest else COMPACT,
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
