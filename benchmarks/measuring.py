"""Side by side: variants in turn within one process, after a warm-up; medians, and ratios to the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleaved(variants: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each variant, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(warmup + rounds):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def table(seconds: dict[str, list[float]], scale: float = 1.0, unit: str = "s") -> str:
    """One line a variant: median, range, and the median of the round-by-round ratios to the first."""
    first = next(iter(seconds.values()))
    lines = [f"{'':40} {'median ' + unit:>12} {'least':>10} {'most':>10} {'ratio':>8}"]
    for name, values in seconds.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        shown = [statistics.median(values) * scale, min(values) * scale, max(values) * scale]
        lines.append(f"{name:40} {shown[0]:12.3f} {shown[1]:10.3f} {shown[2]:10.3f} {ratio:8.3f}")
    return "\n".join(lines)
