"""Wall-clock spans between device synchronisations: a kernel that is only queued is not counted as done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds under names.

    Args:
        devices: waited for before each reading of the clock; CPUs need no waiting.
    """

    def __init__(self, devices: Iterable[torch.device] = ()) -> None:
        self.seconds: dict[str, float] = {}
        self._devices = [device for device in devices if device.type not in ("cpu", "meta")]

    def now(self) -> float:
        """Seconds on a steady clock, once every device has finished what it was given."""
        for device in self._devices:
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Add the time of the `with` block to `name`."""
        start = self.now()
        try:
            yield
        finally:
            self.add(name, self.now() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def __getitem__(self, name: str) -> float:
        """Seconds under that name, zero if it never ran."""
        return self.seconds.get(name, 0.0)
