"""Quantiles of the gamma distribution, by which exact intervals of counts are made."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_LARGE = 200.0  # shapes from which on the approximation is good to four digits
_STEPS, _PRECISION = 100, 1e-12


@lru_cache(2**14)
def gamma_quantile(shape: float, probability: float) -> float:
    """Solve P(shape, x) = probability, P being the regularised lower incomplete gamma function.

    Newton's steps from the approximation of Wilson and Hilferty (1931), halving where one leaves what is known.

    Args:
        shape: at least 1.
        probability: between 0 and 1, both excluded.
    """
    spread = 1 / (3 * math.sqrt(shape))
    at = shape * max(spread, 1 - spread**2 + NormalDist().inv_cdf(probability) * spread) ** 3
    if shape >= _LARGE:
        return at
    low, high = 0.0, math.inf
    for _ in range(_STEPS):
        below, density = _gamma(shape, at)
        low, high = (at, high) if below < probability else (low, at)
        step = at - (below - probability) / density if density else math.nan
        if not low < step < high:
            step = 2 * at if high == math.inf else (low + high) / 2
        if abs(step - at) <= _PRECISION * at:
            return step
        at = step
    return at


def _gamma(shape: float, at: float) -> tuple[float, float]:
    """Sum up the series of P(shape, at); its derivative comes with it."""
    term = total = 1 / shape
    divisor = shape
    while term > total * _PRECISION / 10:
        divisor += 1
        term *= at / divisor
        total += term
    density = math.exp((shape - 1) * math.log(at) - at - math.lgamma(shape))
    return total * at * density, density
