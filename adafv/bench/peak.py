"""Memory that a stretch of work held at most: the device's own count, or the process's where Linux tells it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
        resets = not self._cuda and _reset_resident()
        yield
        if self._cuda:
            self.bytes = sum(torch.cuda.max_memory_allocated(device) for device in self._cuda)
        elif resets:
            self.bytes = _resident()


def _reset_resident() -> bool:
    try:
        _RESET.write_text("5")  # the largest resident size counts from now on
    except OSError:
        return False
    return True


def _resident() -> int | None:
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(lines[0].split()[1]) if lines else None
