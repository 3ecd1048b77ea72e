"""Shares prompts out over servers that may die and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from adafv.errors import ServerError
from adafv.serving.client import Trouble
from adafv.serving.server import Probe, Server

PATIENCE_S = 60.0  # how long servers may be gone before a run ends
BACKOFF_S = 0.5  # before a server is tried again, and twice as long each time
_LONGEST_S = 8.0
_IN_A_ROW = 2  # questions that died of themselves, after which it is rather the server


class Fleet:
    """Servers of one model. One that fails is tried again until it is back; meanwhile the others have its work.

    A prompt that a server has died of is sent alone: to a server that has nothing else to do and was greeted anew.

    Args:
        servers: greeted already.
        probe: what they are greeted with.
    """

    def __init__(self, servers: Sequence[Server], probe: Probe) -> None:
        self.servers, self._probe = list(servers), probe
        self._changed = threading.Condition()
        self._lost: ServerError | None = None
        self._deadly = 0

    @property
    def limit(self) -> int | None:
        """Positions that every server has for one prompt."""
        return min((one.limit for one in self.servers if one.limit is not None), default=None)

    @contextmanager
    def borrowed(self, *, alone: bool) -> Iterator[Server]:
        """Wait for a server that has room, for the time of a `with` block.

        Args:
            alone: have one to oneself.

        Raises:
            ServerError: there is none any more.
        """
        server = self._borrow(alone)
        try:
            yield server
        finally:
            with self._changed:
                server.in_flight -= 1
                server.reserved = server.reserved and not alone
                self._changed.notify_all()

    def greet(self, server: Server, *, anyway: bool) -> None:
        """Make sure of a server once more, `anyway` or only after a silence; raises as `Server.greet`."""
        (server.greet if anyway else server.greet_after_silence)(self._probe)

    def failed(self, server: Server, why: Exception) -> None:
        """Note that a server failed: it gets nothing until it is back."""
        with self._changed:
            if server.trusted:
                server.trusted = False
                self._changed.notify_all()
                threading.Thread(target=self._mend, args=(server, why), name="adafv-mend", daemon=True).start()

    def answered(self) -> None:
        """Note that a server answered a prompt."""
        self._deadly = 0

    def deadly(self, why: Exception) -> None:
        """Note that a prompt failed alone on a server that was well; after two in a row nothing is sent any more."""
        with self._changed:
            self._deadly += 1
            if self._deadly >= _IN_A_ROW:
                self._give_up(why)

    def _borrow(self, alone: bool) -> Server:
        with self._changed:
            while self._lost is None:
                free = [one for one in self.servers if one.trusted and not one.reserved]
                if free:
                    server = min(free, key=lambda one: one.in_flight)
                    if not alone:
                        server.in_flight += 1
                        return server
                    server.reserved = True
                    while not self._is_idle(server):
                        self._changed.wait()
                    if server.trusted and self._lost is None:
                        server.in_flight += 1
                        return server
                    server.reserved = False
                    self._changed.notify_all()
                    continue
                self._changed.wait()
            raise self._lost

    def _is_idle(self, server: Server) -> bool:
        return not server.in_flight or not server.trusted or self._lost is not None

    def _mend(self, server: Server, why: Exception) -> None:
        """Try a server until it is back, or until patience ends while no other is there."""
        since, pause = time.monotonic(), BACKOFF_S
        while self._lost is None:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_S)
            try:
                server.greet(self._probe)
            except (Trouble, ServerError) as trouble:
                why = trouble
            else:
                with self._changed:
                    server.trusted = True
                    self._changed.notify_all()
                return
            with self._changed:
                if time.monotonic() - since >= PATIENCE_S and not any(one.trusted for one in self.servers):
                    self._give_up(why)

    def _give_up(self, why: Exception) -> None:
        what = why.what if isinstance(why, ServerError) else f"server: {why}"
        fix = why.fix if isinstance(why, ServerError) else "look at its log and start it again"
        self._lost = self._lost or ServerError(what, f"{fix}; then go on with --resume")
        self._changed.notify_all()
