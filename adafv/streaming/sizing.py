"""Finds how many questions are best answered at once: as many as memory holds, while more of them are faster."""

from __future__ import annotations

from typing import Literal

FIRST = 8  # what `auto` begins with
MOST = 512  # and where it ends in any case: pixels of twice as many images are held
GAIN = 1.05  # by which a size has to beat the one before: less is noise, and memory for nothing
_TRIES = 2  # the first batch of a size pays for what is new to the device


class BatchSize:
    """The size of batches, given or found: doubled while there is room and it pays, halved for want of memory.

    Args:
        asked: questions in a batch, or `auto`.
    """

    def __init__(self, asked: int | Literal["auto"]) -> None:
        self.now = FIRST if asked == "auto" else asked
        self._searching = asked == "auto"
        self._before = self._best = 0.0  # questions a second: of the size before, and of the present one
        self._tries = 0

    def went(self, seconds: float, *, room: bool) -> None:
        """Learn from a whole batch that was answered at once.

        Args:
            seconds: that its prompts took.
            room: whether twice the memory would be there.
        """
        if not self._searching:
            return
        self._best, self._tries = max(self._best, self.now / max(seconds, 1e-9)), self._tries + 1
        if self._best < GAIN * self._before:
            if self._tries == _TRIES:
                self._settle(self.now // 2)
        elif room and self.now < MOST:
            self.now, self._before, self._best, self._tries = 2 * self.now, self._best, 0.0, 0

    def fitted(self, count: int) -> None:
        """Learn that memory was full, and that `count` questions are the most that fitted."""
        self._settle(max(1, count))

    def _settle(self, size: int) -> None:
        self.now, self._searching = size, False
