"""Keeps the answers that another process is still making, until the one thread that answers takes them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class Flights:
    """Answers on their way: each is begun and taken by one thread, and may arrive in any.

    Args:
        tell: says that one has arrived; called in any thread.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._arrived: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.count = 0

    def add(self, future: Future[Any], take: Callable[[], None]) -> None:
        """Wait for a future; `take` is called by `settle` when it is done."""
        self.count += 1

        def arrived(_: Future[Any]) -> None:
            self._arrived.put(take)
            self._tell()

        future.add_done_callback(arrived)

    def settle(self, *, wait: bool = False) -> None:
        """Take those that have arrived; with `wait`, at least one, unless none is on its way."""
        while self.count and (wait or not self._arrived.empty()):
            take, wait = self._arrived.get(), False
            self.count -= 1
            take()
