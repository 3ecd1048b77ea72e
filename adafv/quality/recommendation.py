"""Which budget to choose: the smallest whose quality is, with its interval, within a tolerance of the unpruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adafv.quality.points import Point

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Recommendation:
    """A point, or none and the one that came nearest.

    Args:
        tolerance: in points of percent.
        unpruned: what is compared with, `None` where it has no answers.
        point: the recommended one.
        nearest: where there is none, the one with the highest lower end.
    """

    tolerance: float
    unpruned: Point | None
    point: Point | None
    nearest: Point | None


def recommend(points: Sequence[Point], tolerance: float) -> Recommendation:
    """Recommend the point with the fewest tokens, of any pruner, that keeps what was asked for; of equals the best.

    A point keeps it when the lower end of the interval of its paired difference to the unpruned model is no lower than
    the tolerance: chance alone then hardly explains that it did not lose more.

    Args:
        points: of one sweep.
        tolerance: in points of percent.
    """
    unpruned = next((point for point in points if point.is_unpruned), None)
    judged = [(point, point.quality.difference) for point in points if _prunes(point)]
    found = [(point, difference) for point, difference in judged if difference is not None]
    within = [(point, gain) for point, gain in found if gain.low >= -tolerance / 100 - _ROUNDING]
    if within:
        best = min(within, key=lambda pair: (_kept(pair[0]), -(pair[0].quality.value or 0), -pair[1].low))
        return Recommendation(tolerance, unpruned, best[0], None)
    nearest = max(found, key=lambda pair: (pair[1].low, pair[1].value, -_kept(pair[0])), default=None)
    return Recommendation(tolerance, unpruned, None, nearest[0] if nearest else None)


def marked(points: Sequence[Point], recommendation: Recommendation) -> list[Point]:
    """Mark the recommended one of the points."""
    return [replace(point, recommended=True) if point is recommendation.point else point for point in points]


def _prunes(point: Point) -> bool:
    """Tell whether a setting leaves anything out."""
    return not point.is_unpruned and point.tokens is not None and point.tokens["kept"] < point.tokens["visual"]


def _kept(point: Point) -> float:
    return point.tokens["kept"] if point.tokens else float("inf")
