"""Intervals of shares and of paired differences over images, which hold when few images changed, too.

A bootstrap promises too much there: of 500 images of which 1 % lose their answer it often sees two, and never draws
what it did not see. So losses and gains are counted as rare events are: each is a weighted Poisson count, images being
the events, with a gamma distribution of the same mean and variance (Fay and Feuer, Statistics in Medicine 16, 1997;
exact for one question an image). The two are put together by recovering variances from their ends (Zou and Donner,
Statistics in Medicine 27, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adafv.quality.gamma import gamma_quantile
from adafv.quality.intervals import LEVEL, Floats, Interval

ERROR = 1 - LEVEL  # both ends together
_CAUTION = 5  # images that lost everything, as many as are imagined beside those that were seen to lose something


@dataclass(frozen=True)
class Part:
    """A share of the questions.

    Args:
        share: from 0 to 1.
        variance: of the share, over images.
        unit: what one more image may add to it; 0 where nothing can be added.
        whole: what an image adds of which everything is added; then there may be as many of them as show none.
    """

    share: float
    variance: float
    unit: float
    whole: float = 0.0

    def upper(self, error: float = ERROR) -> float:
        """Bound it from above; the chance of a larger one is at most `error` / 2."""
        if self.share > 0.5:  # what is missing is rarer
            return 1 - self._missing().lower(error)
        share, variance = self.share + self.unit, self.variance + self.unit**2
        if not variance or not share:
            return self.share
        unseen = self.whole * gamma_quantile(1.0, 1 - error / 2)
        return min(1.0, max(unseen, variance / share * gamma_quantile(share**2 / variance, 1 - error / 2)))

    def lower(self, error: float = ERROR) -> float:
        """Bound it from below."""
        if self.share > 0.5:
            return 1 - self._missing().upper(error)
        if not self.variance or not self.share:
            return self.share
        return self.variance / self.share * gamma_quantile(max(1.0, self.share**2 / self.variance), error / 2)

    def _missing(self) -> Part:
        return Part(1 - self.share, self.variance, self.unit)


@dataclass(frozen=True)
class Change:
    """What one setting gained and lost against another, in shares of the questions that both answered.

    Args:
        correlation: of gains and losses, over images.
        images: that there were.
        effective: equally heavy images that would tell as much.
    """

    gained: Part
    lost: Part
    correlation: float
    images: int
    effective: float

    @property
    def value(self) -> float:
        """The difference."""
        return self.gained.share - self.lost.share

    def low(self, error: float = ERROR) -> float:
        """Bound the difference from below; the chance of a lower one is at most `error` / 2."""
        lost = self.lost.upper(error) - self.lost.share
        return max(-1.0, self.value - self._together(lost, self.gained.share - self.gained.lower(error)))

    def high(self, error: float = ERROR) -> float:
        """Bound the difference from above."""
        gained = self.gained.upper(error) - self.gained.share
        return min(1.0, self.value + self._together(gained, self.lost.share - self.lost.lower(error)))

    def interval(self) -> Interval:
        """Enclose the difference."""
        return Interval(self.value, self.low(), self.high())

    def _together(self, one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 + other**2 - 2 * self.correlation * one * other))


@dataclass(frozen=True)
class Moments:
    """Sums over images of what was gained and lost, for `change`; shares of all that was counted."""

    gained: float
    lost: float
    variances: tuple[float, float]
    correlation: float
    unit: float  # the part of `whole` that an image changed of which anything did, the more often the more; else 0
    changed: int  # images that did
    images: int
    whole: (
        float  # what an image adds of which everything is added, the more often the heavier it is: of n equal ones 1/n
    )


def moments(images: NDArray[np.intp], gained: Floats, lost: Floats, counted: Floats) -> Moments | None:
    """Sum up, image by image; `None` where nothing was counted.

    Args:
        images: (rows,) from 0 on, equal for rows that belong together; of one image alone its rows are told apart.
        gained, lost: (rows,) from 0 to `counted`.
        counted: (rows,) how much each row counts, 0 where it does not.
    """
    there = counted > 0
    _, codes = np.unique(images[there], return_inverse=True)
    if len(codes) and not codes.any():
        codes = np.arange(len(codes))
    whole = counted.sum()
    if not whole:
        return None
    up, down, weight = (np.bincount(codes, values[there]) / whole for values in (gained, lost, counted))
    rise, fall = float(up.sum()), float(down.sum())
    count = len(weight)
    more, less = up - rise * weight, down - fall * weight
    scale = count / max(1, count - 1)
    variances = float(scale * (more @ more)), float(scale * (less @ less))
    together = math.sqrt(variances[0] * variances[1])
    correlation = float(scale * (more @ less)) / together if together else 0.0
    moved = rise + fall
    everything = float(weight @ weight)
    unit = everything * float((up @ (up / weight)) + (down @ (down / weight))) / moved if moved else 0.0
    changed = int(((up > 0) | (down > 0)).sum())
    return Moments(rise, fall, variances, correlation, unit, changed, count, everything)


def change(found: Moments, *, gains: bool = True) -> Change:
    """Make a change of its moments.

    One more image may lose as much as those lost that lost anything, or all of it: the more of them were seen, the less
    it is feared. And there may always be as many that lose everything as so many images do not show.

    Args:
        found: its moments.
        gains: whether there can be any.
    """
    whole = found.whole
    unit = (found.changed * found.unit + _CAUTION * whole) / (found.changed + _CAUTION)
    rise, fall = found.variances
    gained = Part(found.gained, rise, unit if gains else 0.0, whole if gains else 0.0)
    return Change(gained, Part(found.lost, fall, unit, whole), found.correlation, found.images, 1 / whole)


def parts(found: Sequence[Moments | None]) -> list[Part | None]:
    """Make parts of what was lost, one for each setting.

    No promise rests on them: one more image may lose what others lose under this setting, or, where none does, under
    the one that loses least.
    """
    losing = [one for one in found if one is not None and one.lost]
    least = min(losing, key=lambda one: one.lost, default=None)
    return [
        None
        if one is None
        else Part(one.lost, one.variances[1], one.unit or (one.whole if least is None else least.unit))
        for one in found
    ]


def least_told(images: float, error: float = ERROR) -> float:
    """Work out the largest share of images that may lose their answers and show none that does, in `images` of them."""
    return min(1.0, -math.log(error / 2) / max(1, images))


def images_needed(tolerance: float, error: float = ERROR) -> int | None:
    """Count the images at which losing nothing shows that less is lost than `tolerance`, a share; never of nothing."""
    return math.ceil(-math.log(error / 2) / tolerance - 1e-9) if tolerance > 0 else None
