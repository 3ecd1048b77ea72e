"""How far one setting is ahead of another on the same questions, with the interval of the library's tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adafv.quality.changes import change, moments


def ahead(images: NDArray[np.intp], right: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """Points of percent, and 95 % over images: `+1.0 (+0.2 to +1.9)`; empty without questions.

    Args:
        images: (questions,) equal for questions about one image.
        right: (questions,) from 0 to 1; what is not a number was not asked, and is left out.
        other: the same of the setting that it is compared with.
    """
    gain = right - other
    there = ~np.isnan(gain)
    sums = moments(images[there], gain[there].clip(0), (-gain[there]).clip(0), np.ones(int(there.sum())))
    if sums is None:
        return ""
    found = change(sums)
    return f"{_points(found.value)} ({_points(found.low())} to {_points(found.high())})"


def _points(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
