"""Measures whether this machine's CPU multiplies in bfloat16 as fast as in float32: many only emulate it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

_SIDE, _RUNS = 512, 5  # some ten milliseconds, or a few hundred where bfloat16 is emulated
_AS_FAST = 0.9  # of float32's rate: bfloat16 takes half the memory


@cache
def multiplies_halves() -> bool:
    """Tell whether bfloat16 is as fast as float32 or nearly, measured once in a process."""
    return as_fast(time.perf_counter)


def as_fast(now: Callable[[], float]) -> bool:
    """Compare the fastest of a few products in each type.

    Args:
        now: seconds on a steady clock.
    """
    single, half = (_seconds(dtype, now) for dtype in (torch.float32, torch.bfloat16))
    return _AS_FAST * half <= single


def _seconds(dtype: torch.dtype, now: Callable[[], float]) -> float:
    left, right = torch.full((2, _SIDE, _SIDE), 0.5, dtype=dtype)
    torch.matmul(left, right)  # the first one prepares what the others use
    taken = []
    for _ in range(_RUNS):
        start = now()
        torch.matmul(left, right)
        taken.append(now() - start)
    return min(taken)
