"""What the machine itself can do: the rates that no engine can pass."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from adafv.timing import Stopwatch

_SECONDS = 0.4  # that a probe takes at least
_RUNS = 3  # at least


@dataclass(frozen=True)
class Machine:
    """One device and its rates.

    Args:
        device: its name.
        threads: of the CPU that torch uses; 0 where the work is done by an accelerator.
        memory_bytes: of an accelerator, `None` for a CPU.
        bytes_per_s: read and written by copying a large tensor.
        matrix_flops: FLOP/s of a large matrix product, by dtype.
        versions: of what was measured with.
    """

    device: str
    threads: int
    memory_bytes: int | None
    bytes_per_s: float
    matrix_flops: dict[str, float]
    versions: dict[str, str]

    def fastest(self) -> torch.dtype:
        """Choose the dtype with the higher matrix rate; bfloat16 where they are within a tenth, for its memory."""
        half, single = self.matrix_flops["bfloat16"], self.matrix_flops["float32"]
        return torch.bfloat16 if half >= 0.9 * single else torch.float32

    def bound(self, flops: float, moved: float, dtype: str) -> float:
        """Work out the seconds that `flops` of matrix work over `moved` bytes of weights take at least.

        Of a dtype whose rate was not measured, the bytes alone count.
        """
        return max(flops / self.matrix_flops.get(dtype, math.inf), moved / self.bytes_per_s)


def probe(device: torch.device) -> Machine:
    """Measure a device; takes a few seconds.

    Args:
        device: a CPU or an accelerator.
    """
    import transformers

    cpu = device.type == "cpu"
    side, length = (1024, 2**26) if cpu else (8192, 2**29)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if cpu and dtype is torch.float16:  # which CPUs emulate
            continue
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates[_name(dtype)] = 2 * side**3 / _best(device, partial(torch.matmul, left, right))
    source = torch.ones(length, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.nbytes / _best(device, lambda: target.copy_(source))
    return Machine(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor() if cpu else device.type,
        threads=torch.get_num_threads() if cpu else 0,
        memory_bytes=torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        bytes_per_s=moved,
        matrix_flops=rates,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


def _best(device: torch.device, run: Callable[[], Tensor]) -> float:
    """Seconds of the fastest run: a rate that was reached once is one that the machine has."""
    watch, taken = Stopwatch([device]), list[float]()
    run()
    until = time.monotonic() + _SECONDS
    while len(taken) < _RUNS or time.monotonic() < until:
        start = watch.now()
        run()
        taken.append(watch.now() - start)
    return min(taken)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _processor() -> str:
    """Name the processor, as the system does where it says so."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        lines = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0] if lines else platform.processor() or platform.machine()
