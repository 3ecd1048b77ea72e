"""What the answers of one setting cost: sums, medians and throughput, in a few bytes for each answer."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MEANS: dict[str, tuple[str, ...]] = {
    "tokens": ("visual", "kept", "text", "generated"),
    "flops": ("total", "unpruned_total"),
    "memory_bytes": ("kv_cache", "unpruned_kv_cache"),
}
MEDIANS = ("vision", "score", "prune", "prefill", "ttft", "decode")

_DIGITS = 6  # what seconds are rounded to in the lines, by which batches are told apart


@dataclass
class Costs:
    """Costs of the answers of one setting, as they are in its lines."""

    answers: int = 0
    _sums: dict[tuple[str, str], float] = field(default_factory=dict)
    _seconds: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in MEDIANS})
    _batches: set[tuple[float, ...]] = field(default_factory=set)

    def add(self, line: Mapping[str, Any]) -> None:
        """Count one answer."""
        self.answers += 1
        for group, names in MEANS.items():
            for name in names:
                self._sums[group, name] = self._sums.get((group, name), 0) + line[group][name]
        latency = line["latency_s"]
        seconds = [round(latency[name], _DIGITS) for name in MEDIANS if latency[name] is not None]
        for name, value in zip((name for name in MEDIANS if latency[name] is not None), seconds, strict=True):
            self._seconds[name].append(value)
        if len(seconds) == len(MEDIANS):  # a server's times say nothing of batches
            self._batches.add(tuple(seconds))

    def means(self, group: str) -> dict[str, float] | None:
        """Means over the answers."""
        if not self.answers:
            return None
        return {name: self._sums[group, name] / self.answers for name in MEANS[group]}

    def medians(self) -> dict[str, float] | None:
        """Median seconds of each stage that was measured, over the answers."""
        if not self.answers:
            return None
        return {name: statistics.median(held) for name in MEDIANS if len(held := self._seconds[name])}

    def questions_per_s(self) -> float | None:
        """Answers by the time from the pixels to their last token.

        The answers of one batch have one set of times, so each set that is there is a batch.
        """
        seconds = sum(dict(zip(MEDIANS, batch, strict=True))["ttft"] + batch[-1] for batch in self._batches)
        return self.answers / seconds if seconds else None
