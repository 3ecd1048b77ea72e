"""Decodes on servers: prompts go out as they come, up to a number at once, and answers come back in any order."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from adafv.decoding import Decoded, Spliced
from adafv.errors import InputError, PoisonError, ServerError
from adafv.serving import fleet as fleets
from adafv.serving.client import Away, Busy, Strange, Struck, Trouble, Unwanted
from adafv.serving.fleet import Fleet
from adafv.serving.server import Server
from adafv.serving.wire import packed, sampling
from adafv.settings import RunSettings
from adafv.timing import Stopwatch

_DEADLY = 2  # deaths of a server that a prompt is at
_STRANGE = 2  # strange answers to a prompt from servers that greet well: they are about the prompt


class RemoteDecoder:
    """A `Decoder` whose answers are made by servers.

    Args:
        fleet: of them.
        ends: ids of the tokens that end an answer.
        requests: prompts in flight at most; one more waits until there is room.
        timeout_s: how long a server may be silent about a prompt.
    """

    def __init__(self, fleet: Fleet, ends: Sequence[int], requests: int, timeout_s: float) -> None:
        self.requests, self.fleet = requests, fleet
        self._ends, self._timeout_s = list(ends), timeout_s
        self._room = threading.Semaphore(requests)

    def __str__(self) -> str:
        return ", ".join(f"{one} ({one.name})" for one in self.fleet.servers)

    def __call__(self, prompts: Sequence[Spliced], run: RunSettings, watch: Stopwatch) -> list[Future[Decoded]]:
        """Send prompts; waits only for room.

        Raises:
            InputError: one that is not finite, or longer than a server's context; none is sent.
        """
        contents = [self._content(prompt, run) for prompt in prompts]
        started = watch.now() - watch["prefill"]  # splicing is the server's share: it is no other's
        return [self._send(*parts, started) for parts in zip(prompts, contents, strict=True)]

    def _content(self, prompt: Spliced, run: RunSettings) -> dict[str, Any]:
        limit, length = self.fleet.limit, len(prompt.embeddings)
        most = min(run.max_new_tokens, prompt.room or run.max_new_tokens)
        if limit is not None and length >= limit:
            what = f"the prompt takes {length} positions, the server has {limit} for prompt and answer"
            raise InputError(what, "keep fewer visual tokens (--keep), or start it with a larger --max-model-len")
        if limit is not None:
            most = min(most, limit - length)
        return sampling(run, prompt, self._ends, most) | {"prompt_embeds": packed(prompt.embeddings)}

    def _send(self, prompt: Spliced, content: dict[str, Any], started: float) -> Future[Decoded]:
        future: Future[Decoded] = Future()
        self._room.acquire()

        def work() -> None:
            try:
                decoded = self._answered(content, prompt.strikes)
                taken = time.perf_counter() - started
                future.set_result(Decoded(decoded.ids, decoded.stopped, server_s=taken))
            except BaseException as error:  # or who waits for it would wait for ever
                future.set_exception(error)
            finally:
                self._room.release()

        threading.Thread(target=work, name="adafv-request", daemon=True).start()
        return future

    def _answered(self, content: dict[str, Any], strikes: int) -> Decoded:
        """Have a prompt answered, by whichever server and however often it takes.

        Raises:
            InputError: no server will, or servers die of it.
            ServerError: there is no server any more.
        """
        patience, pause, strange = fleets.PATIENCE_S, fleets.BACKOFF_S, 0
        while strikes < _DEADLY:
            try:
                with self.fleet.borrowed(alone=strikes > 0) as server:
                    try:
                        decoded = self._completed(server, content, anyway=strikes > 0)
                    except Struck as trouble:
                        strikes += 1
                        self.fleet.failed(server, trouble)
                        if strikes >= _DEADLY:
                            self.fleet.deadly(trouble)
                        continue
                    except Strange as trouble:
                        strange += 1
                        if strange >= _STRANGE:
                            raise Unwanted(trouble.status, trouble.message) from None
                        continue
                    except Away as trouble:
                        self.fleet.failed(server, trouble)
                        continue
                self.fleet.answered()
                return decoded
            except Busy as trouble:
                if patience <= 0:
                    raise ServerError(f"server: {trouble}", "give it fewer --server-requests", strikes) from None
                time.sleep(pause)
                patience, pause = patience - pause, 2 * pause
            except Unwanted as refusal:
                what = f"the server will not answer it ({refusal.status}: {refusal.message})"
                raise InputError(what, "see what the server's log says of it") from None
            except ServerError as lost:
                raise ServerError(lost.what, lost.fix, strikes) from None
        what = "a server has died twice while it was at this question, and at the second time at nothing else"
        raise PoisonError(what, "it is not sent again: answer it without --server, or begin anew with --force")

    def _completed(self, server: Server, content: dict[str, Any], *, anyway: bool) -> Decoded:
        """Have a server complete a prompt; raises `Strange` only where it greets well before and after."""
        self._make_sure(server, anyway=anyway)
        try:
            return server.complete(content, self._timeout_s)
        except Strange:
            self._make_sure(server, anyway=True)
            raise

    def _make_sure(self, server: Server, *, anyway: bool) -> None:
        """Greet a server anew: `anyway`, so that what happens next is the prompt's doing, or after a silence."""
        try:
            self.fleet.greet(server, anyway=anyway)
        except (Trouble, ServerError) as trouble:
            raise Away(str(trouble)) from None
