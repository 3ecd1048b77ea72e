"""The actors of a run: started, given a block each, and started anew when they die, but not for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adafv.errors import DeviceError, cut
from adafv.settings import BatchSettings, RunSettings
from adafv.spreading.blocks import Block
from adafv.spreading.worker import Done, Fault, Job, Loaded, Worker

START_S = 600.0
"""How long no actor may have a model: how long is waited for room on the cluster, and for weights."""
_FETCH_S = 60.0  # for a result that lies on another node, which may be gone


@dataclass
class _Place:
    """Where one actor is: loading, as long as `block` is `None` and something is awaited, or at a block."""

    actor: Any
    awaited: Any
    block: Block | None = None

    @property
    def idle(self) -> bool:
        return self.awaited is None


@dataclass(frozen=True)
class Death:
    """Tell of an actor that died, and of the block that it was at; `None` while it loaded."""

    block: Block | None
    reason: str


class Actors:
    """Actors of a Ray cluster.

    Ray itself restarts none of them and repeats nothing: so it is known which block an actor died at, and how often.

    Args:
        ray: the module, connected.
        job: what they do.
        count: how many.
        gpus: each has.
    """

    def __init__(self, ray: Any, job: Job, count: int, gpus: float) -> None:
        self._ray, self._job, self._gpus = ray, ray.put(job), gpus
        self._deaths, self._most = 0, 3 * count + 5  # in a row: a question that is deadly alone costs 4 at most
        self._loaded_at = time.monotonic()
        self._places = [self._start() for _ in range(count)]

    @property
    def idle(self) -> bool:
        """Whether an actor has nothing to do."""
        return any(place.idle for place in self._places)

    @property
    def busy(self) -> bool:
        """Whether an actor is at a block."""
        return any(place.block is not None for place in self._places)

    def give(self, block: Block, runs: Sequence[RunSettings], batch: BatchSettings) -> None:
        """Give a block to an actor that is idle, to be answered as `Worker.answer` does."""
        place = next(place for place in self._places if place.idle)
        place.block, place.awaited = block, place.actor.answer.remote(block.items, runs, batch)

    def news(self, wait_s: float) -> Iterator[Loaded | Fault | Death | tuple[Block, Done]]:
        """Tell what has happened to the actors; waits for something for a while.

        Raises:
            DeviceError: too many have died one after the other, or none has got a model for long.
        """
        if self.idle or self.busy:
            self._loaded_at = time.monotonic()
        elif time.monotonic() - self._loaded_at > START_S:
            raise self._none_loaded()
        awaited = {place.awaited: place for place in self._places if place.awaited is not None}
        ready = self._ray.wait(list(awaited), num_returns=1, timeout=wait_s)[0] if awaited else []
        for ref in ready:
            place = awaited[ref]
            try:
                found = self._ray.get(ref, timeout=_FETCH_S)
            except self._ray.exceptions.RayError as error:
                yield self._died(place, error)
                continue
            block, place.awaited, place.block = place.block, None, None
            if block is None:
                yield found
            else:
                self._deaths = 0
                yield block, found

    def halt(self) -> None:
        """Have all finish what they are at, and no more."""
        for place in self._places:
            if place.block is not None:
                place.actor.halt.remote()

    def close(self) -> None:
        """End all actors."""
        for place in self._places:
            self._ray.kill(place.actor)
        self._places = []

    def _start(self) -> _Place:
        remote = self._ray.remote(Worker)
        chosen = {"num_gpus": self._gpus, "num_cpus": 1, "scheduling_strategy": "SPREAD"}
        finite = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}  # the second is for `halt`
        actor = remote.options(**chosen, **finite).remote(self._job)
        return _Place(actor, actor.load.remote())

    def _died(self, place: _Place, error: Exception) -> Death:
        """Put another actor into the place of one that died, unless too many have."""
        reason = cut(" ".join(str(error).split()))
        self._ray.kill(place.actor)  # it may only be out of reach, and would answer twice
        self._places.remove(place)
        self._deaths += 1
        if self._deaths >= self._most:
            what = f"{self._deaths} actors died one after the other: {reason}"
            raise DeviceError(what, "see Ray's logs, then go on with --resume")
        self._places.append(self._start())
        return Death(place.block, reason)

    def _none_loaded(self) -> DeviceError:
        held = self._ray.cluster_resources()
        there = f"{held.get('CPU', 0):g} CPUs and {held.get('GPU', 0):g} GPUs"
        what = f"no actor has got a model within {START_S / 60:g} minutes; the cluster has {there}"
        return DeviceError(what, "an actor takes a CPU and its --gpus-per-actor: `ray status` shows who has them")
