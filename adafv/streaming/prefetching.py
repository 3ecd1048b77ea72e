"""Reads questions ahead of the answers: renders prompts, and decodes and preprocesses images in the background."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from adafv.errors import AdaFVError, ImageError, InputError
from adafv.families.llava import Pixels
from adafv.images import content_key, open_image
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.settings import RunSettings
from adafv.streaming.encoder_cache import Loaded
from adafv.streaming.runs import Asked

Item = Question | Asked | Answer | Sequence[Answer]


@dataclass(frozen=True)
class Image:
    """An image by content. `loaded` is shared by all questions about it; `None` when it is encoded already."""

    key: str
    loaded: Future[Loaded] | None


@dataclass
class Ticket:
    """One item on its way, in input order. An answer of `answers`, one for each run, is set as soon as there is one."""

    number: int
    question: Question | None = None
    prompt: Prompt | None = None
    image: Future[Image] | None = None
    runs: tuple[RunSettings, ...] = ()
    answers: list[Answer | None] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        """Whether all its answers are there."""
        return None not in self.answers

    @property
    def ready(self) -> bool:
        """Whether nothing about it is still being read or preprocessed."""
        if self.answered:
            return True
        if self.image is None or not self.image.done():
            return False
        loaded = None if self.image.exception() else self.image.result().loaded
        return loaded is None or loaded.done()


class Feeder:
    """A thread that pulls items and a pool that loads images, at most `ahead` tickets before the oldest unanswered.

    Args:
        items: questions, and answers that are to be passed through in their place.
        runs: what a question is answered under that does not say so itself.
        render: makes a question's prompt; raises `InputError`.
        preprocess: makes pixels of an RGB image; raises `ImageError`, or `CheckpointError`.
        failed: makes the answer of a question that cannot be answered.
        encoded: whether an image of that content key is encoded already.
        workers: threads that load images.
        ahead: tickets under way at most.
    """

    def __init__(
        self,
        items: Iterable[Item],
        runs: Sequence[RunSettings],
        render: Callable[[Question, RunSettings], Prompt],
        preprocess: Callable[[Any], Pixels],
        failed: Callable[[Question, RunSettings, AdaFVError], Answer],
        encoded: Callable[[str], bool],
        workers: int,
        ahead: int,
    ) -> None:
        self._items, self._runs, self._render, self._preprocess = items, tuple(runs), render, preprocess
        self._failed, self._encoded = failed, encoded
        self._room = threading.Semaphore(ahead)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="adafv-image")
        self._loading: dict[str, Future[Loaded]] = {}
        self._lock = threading.Lock()
        self._first_look = threading.Lock()
        self._closed = False
        self.changed = threading.Condition()
        self.tickets: list[Ticket] = []
        self.ended = False
        self.error: BaseException | None = None
        self.waiting_since: float | None = None
        threading.Thread(target=self._feed, name="adafv-feeder", daemon=True).start()

    def done_with(self, tickets: int) -> None:
        """Make room for as many more."""
        self._room.release(tickets)

    def close(self) -> None:
        """Stop reading; what is being loaded is let go."""
        self._closed = True
        self._room.release()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _feed(self) -> None:
        try:
            for number, item in enumerate(self._timed(self._items)):
                self._room.acquire()
                if self._closed:
                    return
                ticket = self._ticket(number, item)
                with self.changed:
                    self.tickets.append(ticket)
                    self.changed.notify_all()
        except BaseException as error:  # the input's own: it is the consumer who must hear of it
            self.error = error
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _timed(self, items: Iterable[Item]) -> Iterable[Item]:
        """The items, noting since when the next one has been waited for."""
        self.waiting_since = time.monotonic()
        for item in items:
            self.waiting_since = None
            yield item
            self.waiting_since = time.monotonic()

    def _ticket(self, number: int, item: Item) -> Ticket:
        if isinstance(item, Answer | Sequence):
            return Ticket(number, answers=[item] if isinstance(item, Answer) else list(item))
        question, runs = (item.question, item.runs) if isinstance(item, Asked) else (item, self._runs)
        if not runs:
            return Ticket(number)
        if not set(runs) <= set(self._runs):
            raise InputError("a question is asked under other settings than those of its stream", "name them all")
        try:
            prompt = self._render(question, runs[0])
        except InputError as error:
            return Ticket(number, question, answers=[self._failed(question, run, error) for run in runs])
        image = self._pool.submit(self._load, question.image)
        image.add_done_callback(lambda _: self._notify())
        return Ticket(number, question, prompt, image, runs, [None] * len(runs))

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _load(self, source: Any) -> Image:
        """The image's key, and its pixels unless they are under way or no longer needed."""
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
            except AdaFVError as error:
                loaded.set_exception(error)
                self.forget(key)
        return Image(key, loaded)

    def load(self, source: Any) -> Loaded:
        """Decode and preprocess one image, in the thread that asks; raises `AdaFVError` alone."""
        start = time.perf_counter()
        try:
            pixels = self._preprocess(open_image(source))
        except AdaFVError:
            raise
        except Exception as error:  # one image must not end the run, whatever is wrong with it
            what = f"an image could not be read: {type(error).__name__}: {error}"
            raise ImageError(what, "convert it to PNG or JPEG") from error
        return Loaded(pixels, time.perf_counter() - start)

    def forget(self, key: str) -> None:
        """Let go of an image's pixels: only the tickets that wait for them hold them from now on."""
        with self._lock:
            self._loading.pop(key, None)
