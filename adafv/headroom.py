"""Tells whether memory would hold work twice as large as what was just done."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SYSTEM, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_SPARE = 0.9  # of what is free: fragments, and others who need some, too


class Headroom:
    """Watches the memory of accelerators, and that of the process: all the work's, or pixels and buffers beside it.

    Args:
        devices: of the model.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        listed = list(devices)
        self._cuda = [device for device in listed if device.type == "cuda"]
        told = bool(self._cuda) or all(device.type in ("cpu", "meta") for device in listed)  # of others nobody knows
        self._resting = (resident("VmRSS") or 0) if told and reset_resident() else 0

    def begin(self) -> None:
        """Count what an accelerator takes from now on. What a CPU takes is counted since this was made."""
        for device in self._cuda:
            torch.cuda.reset_peak_memory_stats(device)

    def doubles(self) -> bool:
        """Tell whether as much again as the work took at its peak is free; false where nobody knows.

        Beside an accelerator the process's memory counts where it is known, and is no obstacle where it is not.
        """
        if not all(map(_doubles_on, self._cuda)):
            return False
        peak, free = resident("VmHWM"), available()
        if not self._resting or peak is None or free is None:
            return bool(self._cuda)
        return peak - self._resting < _SPARE * free


def _doubles_on(device: torch.device) -> bool:
    """Tell whether an accelerator would hold the work twice; what was there before it, the weights, counts once."""
    peak, now = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    free = torch.cuda.get_device_properties(device).total_memory - peak
    return peak - now < _SPARE * free


def reset_resident() -> bool:
    """Count the process's largest resident size from now on; `False` where that cannot be done."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def resident(name: str) -> int | None:
    """Read the process's resident size in bytes, `VmRSS` now or `VmHWM` at most; `None` where nobody tells."""
    return _kibibytes(_STATUS, name)


def available() -> int | None:
    """Read how many bytes of memory the process could still take, its container's limit included."""
    free = _kibibytes(_SYSTEM, "MemAvailable")
    with suppress(OSError, ValueError):  # no limit, or one that is told otherwise
        limit, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        left = limit - used + (_number(_GROUP / "memory.stat", "inactive_file") or 0)
        free = left if free is None else min(free, left)
    return free


def _kibibytes(path: Path, name: str) -> int | None:
    found = _number(path, f"{name}:")
    return None if found is None else 1024 * found


def _number(path: Path, name: str) -> int | None:
    """Read the number behind a name at the start of a line."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    return next((int(row[1]) for row in rows if row and row[0] == name), None)
