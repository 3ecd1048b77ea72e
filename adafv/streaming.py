"""A stream of questions at the machine's limit: read ahead, encoded once, batched by length, answered in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from adafv.encodings import Encoder, EncodingCost, Loaded
from adafv.errors import AdaFVError, InputError, OutOfMemoryError
from adafv.feeding import Feeder, Ticket
from adafv.llava import ImageEncoding
from adafv.pipeline import Pipeline
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.settings import BatchSettings, RunSettings

_FIRST_BATCH = 8  # what `auto` begins with
_LARGEST_BATCH = 32  # and where it ends
_LINGER_S = 0.05  # how long an incomplete batch waits for an input that is slower than the model
_POLL_S = 0.1  # how often a waiting stream looks whether it was stopped


@dataclass(frozen=True)
class Task:
    """A question with its prompt and encoded image; `cost` is what encoding took, for the first question about it."""

    question: Question
    prompt: Prompt
    encoding: ImageEncoding
    cost: EncodingCost | None


@dataclass
class StreamStats:
    """Counters, live."""

    images_encoded: int = 0
    cache_hits: int = 0
    batch_size: int = 0


class Answerer(Protocol):
    """What a stream needs of a model."""

    pipeline: Pipeline

    def render(self, question: Question, run: RunSettings) -> Prompt:
        """The prompt of a question; raises `InputError`."""

    def run(self, tasks: Sequence[Task], run: RunSettings) -> list[Answer]:
        """Answer a batch."""

    def failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        """The answer of a question that cannot be answered."""


class AnswerStream(Iterator[Answer]):
    """Answers in input order; the work is done by the thread that iterates.

    Args:
        model: answers batches.
        items: questions; an answer among them is passed through in its place.
        run: how questions are answered.
        batch: how the stream is worked through.
        stop: when set, the running batch is finished, what can be delivered in order is, and the stream ends.
    """

    def __init__(
        self,
        model: Answerer,
        items: Iterable[Question | Answer],
        run: RunSettings,
        batch: BatchSettings,
        stop: threading.Event | None = None,
    ) -> None:
        self.stats = StreamStats(batch_size=_FIRST_BATCH if batch.batch_size == "auto" else batch.batch_size)
        self._model, self._run, self._batch = model, run, batch
        self._stop = stop or threading.Event()
        self._encoder = Encoder(model.pipeline, batch.cache_bytes)
        self._most = _LARGEST_BATCH if batch.batch_size == "auto" else batch.batch_size
        self._window = batch.ahead * self._most
        self._feeder = Feeder(
            items,
            render=lambda question: model.render(question, run),
            preprocess=model.pipeline.preprocess,
            failed=lambda question, error: model.failed(question, run, error),
            encoded=self._encoder.holds,
            workers=batch.workers,
            ahead=self._window,
        )
        self._answers = self._deliver()

    def __next__(self) -> Answer:
        return next(self._answers)

    def close(self) -> None:
        """End the stream early and let go of its threads."""
        self._answers.close()
        self._feeder.close()  # a generator that never began does not end either

    def _deliver(self) -> Generator[Answer]:
        """Answers in order, held back until those before them are there."""
        try:
            while True:
                tickets = self._feeder.tickets
                while tickets and (answer := tickets[0].answer) is not None:
                    with self._feeder.changed:
                        tickets.pop(0)
                    self._feeder.done_with(1)
                    yield answer
                if self._stop.is_set():
                    return
                batch = self._next_batch()
                if batch:
                    self._answer(batch)
                elif not tickets:
                    if self._feeder.error is not None:
                        raise self._feeder.error
                    return
        finally:
            self._feeder.close()

    def _next_batch(self) -> list[Ticket]:
        """The oldest open ticket and those nearest to it in length; empty when there is none or it was stopped."""
        feeder = self._feeder
        with feeder.changed:
            while not self._stop.is_set():
                if feeder.tickets and feeder.tickets[0].answer is not None:
                    return []
                waiting = [ticket for ticket in feeder.tickets if ticket.answer is None]
                ready = [ticket for ticket in waiting if ticket.ready]
                if not waiting and feeder.ended:
                    return []
                if len(ready) >= self.stats.batch_size or (ready and self._all_here(waiting, ready)):
                    return self._like(ready)
                feeder.changed.wait(_LINGER_S if ready else _POLL_S)
        return []

    def _all_here(self, waiting: list[Ticket], ready: list[Ticket]) -> bool:
        """Whether waiting for a full batch would only waste time: the input gives no more for now."""
        since = self._feeder.waiting_since
        starved = since is not None and time.monotonic() - since >= _LINGER_S
        full = len(self._feeder.tickets) >= self._window
        return len(ready) == len(waiting) and (self._feeder.ended or starved or full)

    def _like(self, ready: list[Ticket]) -> list[Ticket]:
        """The oldest of those that are ready, and the ones nearest to it in length: little padding."""

        def distance(ticket: Ticket) -> tuple[int, int]:
            return abs(_length(ticket) - _length(ready[0])), ticket.number

        return sorted(ready, key=distance)[: self.stats.batch_size]

    def _answer(self, batch: list[Ticket]) -> int:
        """Set the answers of a batch, and say how many of them could be answered at once.

        What cannot be answered is found by halving; nothing else is lost by it. Out of memory, the batches to come
        are as large as what fitted.
        """
        error = self._attempt(batch)
        if error is None:
            if len(batch) == self.stats.batch_size and self._model.pipeline.has_room():
                self.stats.batch_size = min(self._most, 2 * self.stats.batch_size)
            return len(batch)
        if len(batch) == 1:
            self._fail(batch[0], error)
            return 0
        middle = len(batch) // 2
        fitted = max(self._answer(batch[:middle]), self._answer(batch[middle:]))
        if isinstance(error, OutOfMemoryError):
            self._most = self.stats.batch_size = max(1, fitted)
        return fitted

    def _attempt(self, batch: list[Ticket]) -> AdaFVError | None:
        """Answer a batch, or say why not: without a traceback, which would keep its tensors in memory meanwhile."""
        tasks: dict[int, Task] = {}
        try:
            tasks = self._tasks(batch)
            answers = self._model.run(list(tasks.values()), self._run) if tasks else []
        except (InputError, OutOfMemoryError) as error:
            self._take_back(batch, tasks)
            return type(error)(error.what, error.fix)
        self.stats.cache_hits += sum(task.cost is None for task in tasks.values())
        tickets = {ticket.number: ticket for ticket in batch}
        for number, answer in zip(tasks, answers, strict=True):
            tickets[number].answer = answer
        return None

    def _take_back(self, batch: list[Ticket], tasks: dict[int, Task]) -> None:
        """The bills of tasks that were not answered."""
        for ticket in batch:
            cost = tasks[ticket.number].cost if ticket.number in tasks else None
            if cost is not None and ticket.image is not None:
                self._encoder.owe(ticket.image.result().key, cost)

    def _fail(self, ticket: Ticket, error: AdaFVError) -> None:
        if ticket.question is not None:
            ticket.answer = self._model.failed(ticket.question, self._run, error)

    def _tasks(self, batch: list[Ticket]) -> dict[int, Task]:
        """By ticket number; images that are not encoded yet are, and tickets with an unreadable one are answered."""
        keys: dict[int, str] = {}
        images: dict[str, ImageEncoding] = {}
        fresh: dict[str, Loaded] = {}
        for ticket in batch:
            try:
                key, loaded = self._image(ticket)
            except AdaFVError as error:
                self._fail(ticket, error)
                continue
            keys[ticket.number] = key
            held = self._encoder.held(key)
            if held is not None:
                images[key] = held
            elif loaded is not None:
                fresh.setdefault(key, loaded)
        try:
            images |= self._encoder.encode(fresh)
        finally:
            for key in keys.values():
                self._feeder.forget(key)
        self.stats.images_encoded += len(fresh)
        tasks = {}
        for ticket in batch:
            if ticket.number in keys and ticket.question is not None and ticket.prompt is not None:
                key = keys[ticket.number]
                cost = self._encoder.bill(key)
                tasks[ticket.number] = Task(ticket.question, ticket.prompt, images[key], cost)
        return tasks

    def _image(self, ticket: Ticket) -> tuple[str, Loaded | None]:
        """Key and, unless it is encoded already, pixels of a ticket's image; raises `AdaFVError`."""
        if ticket.image is None or ticket.question is None:
            raise InputError("a ticket without an image", "")
        image = ticket.image.result()
        if self._encoder.holds(image.key):
            return image.key, None
        if image.loaded is None:  # it was encoded when the ticket came, and has left the cache since
            return image.key, self._feeder.load(ticket.question.image)
        return image.key, image.loaded.result()


def _length(ticket: Ticket) -> int:
    return ticket.prompt.text_tokens if ticket.prompt is not None else 0
