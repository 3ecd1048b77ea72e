"""Takes turns: every variant once a round, within one process, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Sample = Mapping[str, float]
"""What one run of a variant took: seconds under names of stages; may hold other numbers, too."""


@dataclass(frozen=True)
class Variant:
    """One way of doing the work.

    Args:
        name: in tables.
        run: does it once, to the end, and tells what it took.
    """

    name: str
    run: Callable[[], Sample]


@dataclass(frozen=True)
class Spread:
    """Median, least and most of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up the values of one variant."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Speedup:
    """How many times faster than another variant, from the ratios within each round.

    Where the ratios of the rounds lie on both sides of 1, or there was one round only, `told_apart` is false: that
    is no speed-up, whatever the median says.
    """

    over: str
    median: float
    low: float
    high: float
    told_apart: bool

    @classmethod
    def of(cls, over: str, slow: Sequence[float], fast: Sequence[float]) -> Speedup:
        """Compare two variants.

        Args:
            over: name of the one that is compared with.
            slow: its seconds, round by round.
            fast: seconds of the one that is said to be faster.
        """
        ratios = [one / other for one, other in zip(slow, fast, strict=True)]
        spread = Spread.of(ratios)
        told = len(ratios) > 1 and (spread.low > 1 or spread.high < 1)
        return cls(over, spread.median, spread.low, spread.high, told)


@dataclass
class Rounds:
    """The samples of some variants, while they are taken.

    Args:
        variants: in the order in which they run.
        samples: of each whole round, by the variant's name.
    """

    variants: Sequence[Variant]
    samples: list[dict[str, Sample]] = field(default_factory=list)

    def take(self, most: int, deadline: float, step: Callable[[str], None]) -> None:
        """Warm up, then measure round after round; a round that was not finished does not count.

        Args:
            most: rounds at most.
            deadline: of `time.monotonic`, after which no run begins.
            step: is told of each run before it begins.
        """
        for number in range(-1, most):
            taken: dict[str, Sample] = {}
            for variant in self.variants:
                if time.monotonic() >= deadline:
                    return
                step(f"{variant.name}, {'warm-up' if number < 0 else f'round {number + 1}'}")
                taken[variant.name] = variant.run()
            if number >= 0:
                self.samples.append(taken)

    def values(self, name: str, stage: str) -> list[float]:
        """List what a variant took in each round; empty where it has no such stage."""
        found = [taken[name].get(stage) for taken in self.samples]
        return [value for value in found if value is not None]

    def spread(self, name: str, stage: str) -> Spread | None:
        """Sum up a stage of a variant; `None` where it was not measured."""
        values = self.values(name, stage)
        return Spread.of(values) if values else None

    def speedup(self, name: str, over: str, stage: str) -> Speedup | None:
        """Compare a variant with another one; `None` where either was not measured."""
        fast, slow = self.values(name, stage), self.values(over, stage)
        return Speedup.of(over, slow, fast) if fast and len(fast) == len(slow) and all(fast) else None
