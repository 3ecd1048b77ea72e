"""Actors: started, given a block each, started anew when they die, and left out where they cannot load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adafv.errors import DeviceError, InputError, cut
from adafv.settings import BatchSettings, RunSettings
from adafv.spreading.blocks import Block
from adafv.spreading.worker import Done, Fault, Job, Loaded, Worker

START_S = 600.0
"""How long no actor may have a model: how long is waited for room on the cluster, and for weights."""
LOADS = 3
"""Deaths while it loads before an actor is left out."""
_FETCH_S = 60.0  # for a result that lies on another node, which may be gone


@dataclass
class _Place:
    """Where one actor is: loading, as long as `block` is `None` and something is awaited, or at a block.

    `loads` counts those who have died in this place since one had a model; `turn` is that of the stream of the block.
    """

    actor: Any
    awaited: Any
    loads: int = 0
    block: Block | None = None
    turn: int = 0

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
        warn: told of those that are left out.
    """

    def __init__(self, ray: Any, job: Job, count: int, gpus: float, warn: Callable[[str], None]) -> None:
        self._ray, self._job, self._gpus, self._warn = ray, ray.put(job), gpus, warn
        self._turn = 0
        self._loaded_at = time.monotonic()
        self._places = [self._start() for _ in range(count)]

    @property
    def idle(self) -> bool:
        """Whether an actor has nothing to do."""
        return any(place.idle for place in self._places)

    @property
    def busy(self) -> bool:
        """Whether an actor is at a block of this turn."""
        return any(place.block is not None and place.turn == self._turn for place in self._places)

    def give(self, block: Block, runs: Sequence[RunSettings], batch: BatchSettings) -> None:
        """Give a block to an actor that is idle, to be answered as `Worker.answer` does."""
        place = next(place for place in self._places if place.idle)
        place.block, place.turn = block, self._turn
        place.awaited = place.actor.answer.remote(block.items, runs, batch, self._turn)

    def news(self, wait_s: float) -> Iterator[Loaded | Fault | Death | tuple[Block, Done]]:
        """Tell what has happened to the actors; waits for something for a while.

        Raises:
            DeviceError: none is left, or none has got a model for long.
        """
        if any(place.idle or place.block is not None for place in self._places):
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
                yield self._died(place, cut(" ".join(str(error).split())))
                continue
            block, place.awaited, place.block, place.loads = place.block, None, None, 0
            if block is not None and place.turn == self._turn:
                yield block, found
            elif block is None and self._is_of_use(place, found):
                yield found

    def halt(self) -> None:
        """Have all finish what they are at, and no more."""
        for place in self._places:
            if place.block is not None:
                place.actor.halt.remote(place.turn)

    def turn(self) -> None:
        """Begin another stream: what actors are still at is of no interest any more."""
        self.halt()
        self._turn += 1

    def close(self) -> None:
        """End all actors."""
        for place in self._places:
            self._ray.kill(place.actor)
        self._places = []

    def _start(self, loads: int = 0) -> _Place:
        remote = self._ray.remote(Worker)
        chosen = {"num_gpus": self._gpus, "num_cpus": 1, "scheduling_strategy": "SPREAD"}
        finite = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}  # the second is for `halt`
        actor = remote.options(**chosen, **finite).remote(self._job)
        return _Place(actor, actor.load.remote(), loads)

    def _died(self, place: _Place, reason: str) -> Death:
        """Put another actor into the place of one that died, unless too many have while they loaded."""
        self._end(place)  # it may only be out of reach, and would answer twice
        loads = place.loads + (place.block is None)
        if loads < LOADS:
            self._places.append(self._start(loads))
        elif self._places:
            self._warn(f"an actor is left out, {len(self._places)} go on: {LOADS} died while they loaded: {reason}")
        else:
            what = f"no actor is left: {LOADS} died one after the other while they loaded: {reason}"
            raise DeviceError(what, "see Ray's logs, then go on with --resume")
        return Death(place.block if place.turn == self._turn else None, reason)

    def _is_of_use(self, place: _Place, found: Loaded | Fault) -> bool:
        """Leave out an actor that cannot load as long as there are others: what is wrong may be its node's alone."""
        if isinstance(found, Loaded) or issubclass(found.kind, InputError) or len(self._places) == 1:
            return True
        self._end(place)
        self._warn(f"an actor is left out, {len(self._places)} go on: {found.what} ({found.fix})")
        return False

    def _end(self, place: _Place) -> None:
        self._ray.kill(place.actor)
        self._places.remove(place)

    def _none_loaded(self) -> DeviceError:
        held = self._ray.cluster_resources()
        there = f"{held.get('CPU', 0):g} CPUs and {held.get('GPU', 0):g} GPUs"
        what = f"no actor has got a model within {START_S / 60:g} minutes; the cluster has {there}"
        return DeviceError(what, "an actor takes a CPU and its --gpus-per-actor: `ray status` shows who has them")
