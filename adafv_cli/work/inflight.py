"""Bounds what is held of images that come inside the lines themselves: a line may have 64 MB of them."""

from __future__ import annotations

import threading
from collections import deque

LIMIT_BYTES = 256 * 2**20
_POLL_S = 0.1


class InFlight:
    """Bytes that were read and not answered yet; answers come in the order of the lines.

    Args:
        stop: ends all waiting.
        limit_bytes: held at most, but for a single line that has more.
    """

    def __init__(self, stop: threading.Event, limit_bytes: int = LIMIT_BYTES) -> None:
        self._stop, self._limit = stop, limit_bytes
        self._sizes: deque[int] = deque()
        self._total = 0
        self._changed = threading.Condition()

    def add(self, size: int) -> None:
        """Count a line, and wait until there is room for it."""
        with self._changed:
            while size and self._total and self._total + size > self._limit and not self._stop.is_set():
                self._changed.wait(_POLL_S)
            self._sizes.append(size)
            self._total += size

    def done(self) -> None:
        """The oldest line was answered."""
        with self._changed:
            self._total -= self._sizes.popleft()
            self._changed.notify_all()
