"""Prefetches the questions of a stream: renders prompts, and decodes and preprocesses images in the background."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from adafv.encoding import Pixels
from adafv.errors import AdaFVError, InputError
from adafv.images import content_key, open_image
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.settings import RunSettings
from adafv.streaming.backstop import line_error, log_defect
from adafv.streaming.encoder_cache import Loaded
from adafv.streaming.runs import Asked
from adafv.streaming.tickets import Image, Ticket

Item = Question | Asked | Answer | Sequence[Answer]

_LINGER_S = 0.05  # how long an incomplete batch waits for an input that is slower than the model
_POLL_S = 0.1  # how often a waiting consumer looks whether it was stopped


class Prefetcher:
    """Reads items in a thread and loads their images in a pool, by a bounded number ahead of the answers.

    Everything but `load` and `forget` is for the one thread that answers.

    Args:
        items: questions, and answers that are to be passed through in their place.
        runs: what a question is answered under that does not say so itself.
        render: makes a question's prompt; whatever it raises is that question's error.
        preprocess: makes pixels of an RGB image; whatever it raises is the error of the questions about it.
        failed: makes the answer of a question that cannot be answered.
        encoded: whether the image of a content key is encoded already.
        workers: threads that load images.
        ahead: tickets in flight at most.
    """

    def __init__(
        self,
        items: Iterable[Item],
        *,
        runs: Sequence[RunSettings],
        render: Callable[[Question, RunSettings], Prompt],
        preprocess: Callable[[Any], Pixels],
        failed: Callable[[Question, RunSettings, AdaFVError], Answer],
        encoded: Callable[[str], bool],
        workers: int,
        ahead: int,
    ) -> None:
        self._items, self._runs, self._render, self._preprocess = items, tuple(runs), render, preprocess
        self._failed, self._encoded, self._ahead = failed, encoded, ahead
        self._room = threading.Semaphore(ahead)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="adafv-image")
        self._loading: dict[str, Future[Loaded]] = {}
        self._lock = threading.Lock()
        self._first_look = threading.Lock()
        self._closed = False
        self._changed = threading.Condition()
        self._news = False
        self._tickets: list[Ticket] = []
        self._ended = False
        self._error: BaseException | None = None
        self._waiting_since: float | None = None
        threading.Thread(target=self._read, name="adafv-prefetch", daemon=True).start()

    def pop_answered(self) -> Ticket | None:
        """Take the oldest ticket if it is answered, and make room for another."""
        with self._changed:
            if not self._tickets or not self._tickets[0].answered:
                return None
            ticket = self._tickets.pop(0)
        self._room.release()
        return ticket

    def ready(self, count: int, stop: threading.Event) -> list[Ticket]:
        """Wait for tickets that can be answered now.

        Args:
            count: how many are waited for, unless the input gives no more for now.
            stop: ends the waiting.

        Returns:
            All of them, oldest first. None when there is nothing to answer: the oldest ticket is answered already,
            there is news, the input has ended, or `stop` is set.
        """
        with self._changed:
            while not stop.is_set():
                if self._news or (self._tickets and self._tickets[0].answered):
                    self._news = False
                    return []
                waiting = [ticket for ticket in self._tickets if not (ticket.answered or ticket.taken)]
                ready = [ticket for ticket in waiting if ticket.ready]
                if self._ended and all(ticket.answered for ticket in self._tickets):
                    return []
                if len(ready) >= count or (ready and len(ready) == len(waiting) and self._no_more_for_now()):
                    return ready
                self._changed.wait(_LINGER_S if ready else _POLL_S)
        return []

    def reach(self, ahead: int) -> None:
        """Keep at least so many tickets in flight from now on."""
        more = ahead - self._ahead
        if more > 0:
            self._ahead = ahead
            self._room.release(more)

    def tell_news(self) -> None:
        """End the waiting for tickets, now or the next time: something else is to be done. From any thread."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def drained(self) -> bool:
        """Tell whether the input has ended and all its tickets were taken; raises what reading the input raised."""
        with self._changed:
            if self._tickets or not self._ended:
                return False
        if self._error is not None:
            raise self._error
        return True

    def load(self, source: Any) -> Loaded:
        """Decode and preprocess one image, in the thread that asks; raises `AdaFVError` alone."""
        start = time.perf_counter()
        try:
            pixels = self._preprocess(open_image(source))
        except Exception as error:
            raise line_error(error) from error
        return Loaded(pixels, time.perf_counter() - start)

    def forget(self, key: str) -> None:
        """Let go of an image's pixels: only the tickets that wait for them hold them from now on."""
        with self._lock:
            self._loading.pop(key, None)

    def close(self) -> None:
        """Stop reading; what is being loaded is let go."""
        self._closed = True
        self._room.release()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> None:
        try:
            for number, item in enumerate(self._timed(self._items)):
                self._room.acquire()
                if self._closed:
                    return
                ticket = self._ticket(number, item)
                with self._changed:
                    self._tickets.append(ticket)
                    self._changed.notify_all()
        except BaseException as error:  # the input's own: it is the consumer who must hear of it
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _timed(self, items: Iterable[Item]) -> Iterable[Item]:
        """Pass the items on, noting since when the next one has been waited for."""
        self._waiting_since = time.monotonic()
        for item in items:
            self._waiting_since = None
            yield item
            self._waiting_since = time.monotonic()

    def _no_more_for_now(self) -> bool:
        since = self._waiting_since
        starved = since is not None and time.monotonic() - since >= _LINGER_S
        return self._ended or starved or len(self._tickets) >= self._ahead

    def _ticket(self, number: int, item: Item) -> Ticket:
        if isinstance(item, Answer | Sequence):
            return Ticket(number, answers=[item] if isinstance(item, Answer) else list(item))
        asked = item if isinstance(item, Asked) else Asked(item, self._runs)
        question, runs = asked.question, asked.runs
        if not runs:
            return Ticket(number)
        if not set(runs) <= set(self._runs):
            raise InputError("a question is asked under other settings than those of its stream", "name them all")
        try:
            prompt = self._render(question, runs[0])
        except Exception as raised:
            error = line_error(raised)
            log_defect(question.question_id, error)
            return Ticket(number, question, answers=[self._failed(question, run, error) for run in runs])
        image = self._pool.submit(self._look_up, question.image)
        image.add_done_callback(lambda _: self._notify())
        return Ticket(number, question, prompt, image, runs, [None] * len(runs), asked.strikes)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _look_up(self, source: Any) -> Image:
        """Find the image's key, and load its pixels unless they are under way or no longer needed."""
        # Pillow decodes an image that it opened when it is first looked at, and not in two threads at once.
        lazy = not isinstance(source, str | bytes | os.PathLike)
        with self._first_look if lazy else nullcontext():
            key = content_key(source)
        if self._encoded(key):
            return Image(key, None)
        with self._lock:
            known = self._loading.get(key)
            loaded = self._loading.setdefault(key, Future())
        if known is None:
            try:
                loaded.set_result(self.load(source))
            except BaseException as error:  # or who waits for it would wait for ever
                loaded.set_exception(error)
                self.forget(key)
        return Image(key, loaded)
