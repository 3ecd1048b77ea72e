"""Memory that a stretch of work held at most: the device's own count, or the process's where Linux tells it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from adafv.headroom import reset_resident, resident


class Peak:
    """Bytes held at most since it was entered, weights included; `None` where nobody counts.

    Args:
        devices: of the model.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._cuda = [device for device in devices if device.type == "cuda"]
        self.bytes: int | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count during the `with` block."""
        for device in self._cuda:
            torch.cuda.reset_peak_memory_stats(device)
        resets = not self._cuda and reset_resident()
        yield
        if self._cuda:
            self.bytes = sum(torch.cuda.max_memory_allocated(device) for device in self._cuda)
        elif resets:
            self.bytes = resident("VmHWM")
