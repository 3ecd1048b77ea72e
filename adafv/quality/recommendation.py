"""Which budget to choose: the smallest whose quality is, for all that were tried, surely near the unpruned model's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from adafv.quality.changes import ERROR, Change, images_needed, least_told
from adafv.quality.points import Point

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Recommendation:
    """A point, or none and the one that came nearest.

    Args:
        tolerance: in points of percent.
        unpruned: what is compared with, `None` where it has no answers.
        point: the recommended one.
        nearest: where there is none, the one that lost least.
        low: how much of a loss of `point`, or `nearest`, remains possible when it is allowed for how many were tried.
        settings: that were compared with the unpruned model.
        series: of settings among them, each of one pruner, positions and select.
        images: that the comparison rests on.
        effective: equally heavy images that would tell as much; fewer, where some have more questions than others.
    """

    tolerance: float
    unpruned: Point | None
    point: Point | None
    nearest: Point | None
    low: float | None = None
    settings: int = 0
    series: int = 0
    images: int = 0
    effective: float = 0.0

    @property
    def least_told(self) -> float:
        """The difference, a share, below which one setting and another cannot be told apart on so many images."""
        return least_told(self.effective)

    @property
    def images_needed(self) -> int | None:
        """Images like these at which a setting that loses nothing would be recommended; `None` if none are enough."""
        needed = images_needed(self.tolerance / 100, ERROR / max(1, self.series))
        if needed is None or self.effective >= self.images * (1 - _ROUNDING):
            return needed
        return math.ceil(needed * self.images / self.effective - _ROUNDING)


def recommend(points: Sequence[Point], tolerance: float) -> Recommendation:
    """Recommend the point with the fewest tokens that surely loses no more than is tolerated; of equals the best.

    The chance that any point which loses more is among those to choose from is at most 2.5 %, however many there are.
    The budgets of one pruner are tested from the largest down, up to the first that fails, which costs no correction
    (Maurer, Hothorn and Lehmacher 1995). The pruners share the error, and what those do not need that passed with all
    budgets goes to the others, as with Holm (Bretz et al., Statistics in Medicine 28, 2009).

    Args:
        points: of one sweep.
        tolerance: in points of percent.
    """
    unpruned = next((point for point in points if point.is_unpruned), None)
    judged = [(point, point.quality.change) for point in points if _prunes(point)]
    found = [(point, change) for point, change in judged if change is not None]
    series = _series(found)
    images = max((change.images for _, change in found), default=0)
    effective = min((change.effective for _, change in found), default=0.0)
    passed, error = _passed(series, -tolerance / 100 - _ROUNDING)
    about = {"settings": len(found), "series": len(series), "images": images}
    if passed:
        best, change = min(passed, key=lambda pair: (_kept(pair[0]), -(pair[0].quality.value or 0), -pair[1].low()))
        return Recommendation(tolerance, unpruned, best, None, change.low(error), **about, effective=effective)
    near = max(found, key=lambda pair: (pair[1].value, pair[1].low(error), -_kept(pair[0])), default=None)
    if near is None:
        return Recommendation(tolerance, unpruned, None, None, **about, effective=effective)
    return Recommendation(tolerance, unpruned, None, near[0], near[1].low(error), **about, effective=effective)


def _series(found: Sequence[tuple[Point, Change]]) -> list[list[tuple[Point, Change]]]:
    """Sort the budgets of each pruner, the largest first."""
    series: dict[str, list[tuple[Point, Change]]] = {}
    for point, change in found:
        series.setdefault(point.name, []).append((point, change))
    return [sorted(one, key=lambda pair: -_kept(pair[0])) for one in series.values()]


def _passed(series: Sequence[list[tuple[Point, Change]]], least: float) -> tuple[list[tuple[Point, Change]], float]:
    """List those whose difference is surely no lower than `least`, with the error that each test was left with."""
    passed = [0] * len(series)
    while True:
        open_ones = sum(count < len(one) for count, one in zip(passed, series, strict=True))
        error = ERROR / max(1, open_ones)
        before = list(passed)
        for number, one in enumerate(series):
            while passed[number] < len(one) and one[passed[number]][1].low(error) >= least:
                passed[number] += 1
        if passed == before:
            return [pair for count, one in zip(passed, series, strict=True) for pair in one[:count]], error


def marked(points: Sequence[Point], recommendation: Recommendation) -> list[Point]:
    """Mark the recommended one of the points."""
    return [replace(point, recommended=True) if point is recommendation.point else point for point in points]


def _prunes(point: Point) -> bool:
    """Tell whether a setting leaves anything out."""
    return (
        not (point.is_unpruned or point.is_floor)
        and point.tokens is not None
        and point.tokens["kept"] < point.tokens["visual"]
    )


def _kept(point: Point) -> float:
    return point.tokens["kept"] if point.tokens else float("inf")
