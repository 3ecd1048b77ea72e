"""A Ray cluster that answers streams of questions as a model does."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, cast

from adafv.errors import DeviceError, InputError, cut
from adafv.records import Answer
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.spreading.actors import Actors
from adafv.spreading.settings import ClusterSettings
from adafv.spreading.stream import SpreadStream
from adafv.spreading.worker import KEY, Fault, Job, Loaded
from adafv.streaming.runs import Asked

log = logging.getLogger(__name__)

_REACH_S = 5.0
_LINES = 8, 64, 256  # of a block: at least, where nothing is known of the input, at most
_BLOCKS = 4  # for each actor, or the last one to end would be waited for


class Cluster:
    """Actors with a model each, which answer a stream together.

    Args:
        settings: of the cluster.
        load, run: settings of the library.
        folder: that relative paths are relative to, on every node where it is there.
        expected: questions; `None` where that is not known.
        warn: told of actors that are left out since they cannot load; others go on. `None` for the log.

    Raises:
        InputError: Ray is not installed, or settings that the checkpoint cannot be used with.
        DeviceError: no cluster, or nothing in it that the actors could run on.
        CheckpointError: no node can load the checkpoint.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        load: LoadSettings,
        run: RunSettings,
        folder: str,
        expected: int | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._ray, self._own = _connected(settings.address)
        self._actors: Actors | None = None
        try:
            self.count, self.gpus = self._size(settings)
            job = Job(folder, load, run, os.environ.get(KEY))
            self._actors = Actors(self._ray, job, self.count, self.gpus, warn or log.warning)
            self._loaded = self._first(self._actors)
        except BaseException:
            self.close()
            raise
        least, unknown, most = _LINES
        share = unknown if expected is None else expected // (_BLOCKS * self.count)
        self._lines = max(least, min(most, share))
        self.model_id, self.is_demo = self._loaded.model_id, self._loaded.is_demo
        self.notes, self.context = self._loaded.notes, self._loaded.context

    def describe(self, run: RunSettings | None = None) -> dict[str, object]:
        """Tell what `adafv.Model.describe` does, and of the actors."""
        described: dict[str, object] = {"actors": self.count, "gpus_per_actor": self.gpus}
        return described | self._loaded.described

    def sweep(
        self,
        items: Iterable[Asked | Sequence[Answer]],
        runs: Sequence[RunSettings],
        batch: BatchSettings | None = None,
        stop: threading.Event | None = None,
    ) -> SpreadStream:
        """Answer a stream of questions as `adafv.Model.sweep` does."""
        if self._actors is None:
            raise DeviceError("the cluster was let go", "make another one")
        chosen = batch or BatchSettings()
        return SpreadStream(self._actors, self.model_id, items, runs, chosen, lines=self._lines, stop=stop)

    def close(self) -> None:
        """End the actors, and let go of the cluster."""
        if self._actors is not None:
            self._actors.close()
            self._actors = None
        if self._own:
            self._own = False
            self._ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        """End the actors."""
        self.close()

    def _size(self, settings: ClusterSettings) -> tuple[int, float]:
        """Choose how many actors there are, and which part of a GPU each has."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        held = [node.get("GPU", 0.0) for node in nodes]
        gpus = settings.gpus_per_actor
        if gpus is None:
            gpus = 1.0 if any(held) else 0.0
        if gpus > max(held, default=0.0):
            what = f"gpus_per_actor: {gpus:g}: no node has as many, the largest has {max(held, default=0.0):g}"
            raise DeviceError(what, "give less, or start nodes with GPUs")
        room = sum(int(one / gpus) for one in held) if gpus else len(nodes)
        return settings.actors or max(1, room), gpus

    def _first(self, actors: Actors) -> Loaded:
        """Wait for the first actor that has loaded."""
        while True:
            for news in actors.news(1.0):
                if isinstance(news, Loaded):
                    return news
                if isinstance(news, Fault):
                    raise news.error()


def _connected(address: str | None) -> tuple[Any, bool]:
    """Connect to a cluster, or start one of this machine alone; whether it is ours to be let go.

    Raises:
        InputError: Ray is not installed.
        DeviceError: there is no cluster.
    """
    if find_spec("ray") is None:
        raise InputError("engine: ray is not installed", "pip install 'adafv[ray]'")
    _reach(address)
    import ray

    if ray.is_initialized():
        return ray, False
    _reach(_chosen(address))
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (Exception, SystemExit) as error:  # Ray ends the process of who waits too long for a head
        said = cut((str(error).strip().splitlines() or [type(error).__name__])[0])
        what = f"address: no Ray cluster at {address or 'this machine'}: {said}"
        raise DeviceError(what, "start one with `ray start --head`, or give its address") from None
    return ray, True


def _chosen(address: str | None) -> str | None:
    """Find the cluster that Ray will connect to: the last one of this machine may have left its address behind."""
    try:
        from ray._private.services import get_ray_address_from_environment

        return cast(str | None, get_ray_address_from_environment(address, None))
    except (ImportError, ConnectionError):  # another version's, or there is none, as it will say
        return address


def _reach(address: str | None) -> None:
    """See that something listens where a cluster is said to be: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _REACH_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        what = f"address: no Ray cluster at {cut(str(address))}: {getattr(error, 'strerror', None) or error}"
        fix = "start one with `ray start --head`, or give its address; `ray stop` forgets one that is gone"
        raise DeviceError(what, fix) from None
