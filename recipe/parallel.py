"""Training on a few single-thread processes that share each step's gradient.

Processes of one thread each keep their speed when the machine is busy with something else; two OpenMP threads wait
for each other at every operation and lose three quarters of it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Steps and learning rate: warm-up, constant, cosine to `last_rate` over the share `decay` of the steps."""

    steps: int
    batch: int  # pictures a step, all processes together
    rate: float = 1e-3
    last_rate: float = 2e-5
    warmup: int = 200
    decay: float = 0.6

    def rate_at(self, step: int) -> float:
        """Learning rate of one step."""
        start = self.steps * (1 - self.decay)
        if step < start:
            return self.rate * min(1.0, (step + 1) / self.warmup)
        done = (step - start) / max(1.0, self.steps - start)
        return self.last_rate + (self.rate - self.last_rate) * (1 + math.cos(math.pi * done)) / 2


class FlatOptimizer:
    """AdamW over all parameters as one vector, so that one all-reduce and one fused update make a step."""

    def __init__(self, parameters: Iterable[nn.Parameter], schedule: Schedule) -> None:
        self.schedule = schedule
        owners = list(parameters)
        self.vector = nn.Parameter(torch.cat([p.detach().flatten() for p in owners]))
        self.vector.grad = torch.zeros_like(self.vector)
        offset = 0
        for p in owners:
            place = slice(offset, offset + p.numel())
            p.data = self.vector.data[place].view_as(p)
            p.grad = self.vector.grad[place].view_as(p)
            offset += p.numel()
        self.adam = torch.optim.AdamW([self.vector], betas=(0.9, 0.98), weight_decay=0.03, fused=True)

    def step(self, loss: Tensor, number: int) -> float:
        """Backward pass, gradient mean over processes, clip to norm 1, update. Returns the gradient's norm."""
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = self.vector.grad
        if gradient is None:
            raise RuntimeError("the flat gradient is gone")
        if distributed.is_initialized():
            distributed.all_reduce(gradient)
            gradient /= distributed.get_world_size()
        norm = float(gradient.norm())
        gradient *= min(1.0, 1.0 / max(norm, 1e-9))
        for group in self.adam.param_groups:
            group["lr"] = self.schedule.rate_at(number)
        self.adam.step()
        gradient.zero_()
        return norm

    def state(self, steps: int) -> dict[str, Any]:
        """Weights and moments after so many steps, to go on from."""
        return {"steps": steps, "vector": self.vector.detach(), "adam": self.adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> int:
        """Take over a state; returns the number of steps that it has behind it."""
        self.vector.data.copy_(state["vector"])  # in place: parameters are views of it
        self.adam.load_state_dict(state["adam"])
        return int(state["steps"])


def _worker(rank: int, job: Callable[..., None], world: int, meeting: str, arguments: tuple[Any, ...]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    try:
        job(rank, world, *arguments)
    finally:
        distributed.destroy_process_group()


def run_parallel(job: Callable[..., None], world: int, folder: Path, *arguments: Any) -> None:
    """Run `job(rank, world, *arguments)` in `world` processes; in this one if `world` is 1."""
    if world == 1:
        job(0, 1, *arguments)
        return
    meeting = folder / f"meeting-{os.getpid()}-{job.__name__}"
    meeting.unlink(missing_ok=True)
    multiprocessing.spawn(_worker, (job, world, str(meeting.absolute()), arguments), nprocs=world)  # type: ignore[attr-defined,no-untyped-call]
    meeting.unlink(missing_ok=True)
