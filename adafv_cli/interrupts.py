"""Ctrl-C in two steps: the first ends a run in good order, the second ends it."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from adafv_cli.console import Streams
from adafv_cli.exits import Exit

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 5.0
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """While entered, the first SIGINT or SIGTERM sets `stop` and says so; the second ends the process at once.

    Ending it at once is safe because everything that was written, was written whole.
    """

    def __init__(self, streams: Streams) -> None:
        self.stop = threading.Event()
        self.happened = False
        self._streams = streams
        self._before: dict[int, Any] = {}  # handlers are functions or numbers
        self._announcing: threading.Thread | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            # What a shell has ignored for a job in the background, stays so.
            wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._announcing is not None:  # what is said of the end comes after it
            self._announcing.join(_PATIENCE_S)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.happened:
            self._end()
        self.happened = True
        self.stop.set()
        # Not from here: the signal may have come in the middle of a write to the same stream.
        self._announcing = threading.Thread(target=self._announce, daemon=True)
        self._announcing.start()

    def _announce(self) -> None:
        self._streams.console.print(
            "adafv: interrupted: finishing the running batch (again: stop at once)", soft_wrap=True
        )

    def _end(self) -> None:
        if self._streams.animated:
            os.write(2, _SHOW_CURSOR)  # which a progress bar hides
        os._exit(Exit.INTERRUPTED)
