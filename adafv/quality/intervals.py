"""Bootstrap intervals over images: questions about one image are alike, so images are drawn, not questions.

They enclose what is no mean: precision, recall, F1. Shares and differences have ends of their own (`changes.py`). One
seeded set of draws serves every statistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
LEVEL = 0.95

_AT_ONCE = 2**22  # draws held in memory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % interval."""

    value: float
    low: float
    high: float


class Resampling:
    """The draws: with replacement, as many clusters as there are.

    Where all rows belong to one cluster, rows are drawn: the interval then speaks of that image alone.

    Args:
        clusters: (rows,) any integers, equal for rows that belong together.
        resamples: how many draws.
        seed: of the draws.
    """

    def __init__(self, clusters: Sequence[int] | NDArray[Any], resamples: int = RESAMPLES, seed: int = 0) -> None:
        found, codes = np.unique(np.asarray(clusters), return_inverse=True)
        alone = len(found) == 1
        self._codes = np.arange(len(codes)) if alone else codes
        self.clusters = len(codes) if alone else len(found)
        self._resamples, self._seed = resamples, seed

    def sums(self, values: Floats) -> Floats:
        """Column sums of (rows, M) values: (1 + resamples, M), first of all rows as they are, then of the draws."""
        per_cluster = np.zeros((self.clusters, values.shape[1]))
        if not self.clusters:
            return np.zeros((1 + self._resamples, values.shape[1]))
        np.add.at(per_cluster, self._codes, values)
        parts = [per_cluster.sum(axis=0, keepdims=True)]
        rng = np.random.default_rng(self._seed)
        left, step = self._resamples, max(1, _AT_ONCE // max(1, self.clusters))
        while left:
            some = min(step, left)
            drawn = rng.integers(0, self.clusters, size=(some, self.clusters))
            places = drawn + self.clusters * np.arange(some)[:, None]
            counts = np.bincount(places.ravel(), minlength=some * self.clusters).reshape(some, self.clusters)
            parts.append(counts @ per_cluster)
            left -= some
        return np.concatenate(parts)


def ratio(above: Floats, below: Floats) -> Floats:
    """Divide two columns of sums element by element; NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def interval(statistic: Floats) -> Interval | None:
    """Enclose (1 + resamples,) values, the first of which is the statistic itself; `None` where it is not defined.

    Draws in which it is not defined are left out.
    """
    drawn = statistic[1:][np.isfinite(statistic[1:])]
    if not np.isfinite(statistic[0]) or not len(drawn):
        return None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic[0]), float(low), float(high))
