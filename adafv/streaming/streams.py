"""A stream of questions at the machine's limit: read ahead, encoded once, batched by length, answered in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence

from adafv.records import Answer, Question
from adafv.settings import BatchSettings, RunSettings
from adafv.streaming.encoder_cache import Encoder
from adafv.streaming.prefetching import Feeder, Item, Ticket
from adafv.streaming.scheduling import Answerer, Answering, StreamStats

_FIRST_BATCH = 8  # what `auto` begins with
_LARGEST_BATCH = 32  # and where it ends
_LINGER_S = 0.05  # how long an incomplete batch waits for an input that is slower than the model
_POLL_S = 0.1  # how often a waiting stream looks whether it was stopped


class SweepStream(Iterator[list[Answer]]):
    """For each question its answers under several runs, in input order; the work is done by the thread that iterates.

    A batch of questions is answered under every run before the encodings of its images are let go.

    Args:
        model: answers batches.
        items: questions, or questions with some of the runs; answers among them are passed through in their place.
        runs: how questions are answered; they differ in `keep` and `pruner` alone.
        batch: how the stream is worked through.
        stop: when set, the running batch is finished, what can be delivered in order is, and the stream ends.
    """

    def __init__(
        self,
        model: Answerer,
        items: Iterable[Item],
        runs: Sequence[RunSettings],
        batch: BatchSettings,
        stop: threading.Event | None = None,
    ) -> None:
        self.stats = StreamStats(batch_size=_FIRST_BATCH if batch.batch_size == "auto" else batch.batch_size)
        self._stop = stop or threading.Event()
        most = _LARGEST_BATCH if batch.batch_size == "auto" else batch.batch_size
        self._window = batch.ahead * most
        encoder = Encoder(model.pipeline, batch.cache_bytes, runs)
        self._feeder = Feeder(
            items,
            runs=runs,
            render=model.render,
            preprocess=model.pipeline.preprocess,
            failed=model.failed,
            encoded=encoder.holds,
            workers=batch.workers,
            ahead=self._window,
        )
        self._answering = Answering(model, runs, encoder, self._feeder, self.stats, most)
        self._answers = self._deliver()

    def __next__(self) -> list[Answer]:
        return next(self._answers)

    def close(self) -> None:
        """End the stream early and let go of its threads."""
        self._answers.close()
        self._feeder.close()  # a generator that never began does not end either

    def _deliver(self) -> Generator[list[Answer]]:
        """Answers in order, held back until those before them are there."""
        try:
            while True:
                tickets = self._feeder.tickets
                while tickets and tickets[0].answered:
                    with self._feeder.changed:
                        ticket = tickets.pop(0)
                    self._feeder.done_with(1)
                    yield [answer for answer in ticket.answers if answer is not None]
                if self._stop.is_set():
                    return
                batch = self._next_batch()
                if batch:
                    self._answering.answer(batch)
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
                if feeder.tickets and feeder.tickets[0].answered:
                    return []
                waiting = [ticket for ticket in feeder.tickets if not ticket.answered]
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


class AnswerStream(Iterator[Answer]):
    """Answers in input order: the stream of a single run.

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
        self._sweep = SweepStream(model, items, [run], batch, stop)

    def __next__(self) -> Answer:
        (answer,) = next(self._sweep)
        return answer

    @property
    def stats(self) -> StreamStats:
        """Counters, live."""
        return self._sweep.stats

    def close(self) -> None:
        """End the stream early and let go of its threads."""
        self._sweep.close()


def _length(ticket: Ticket) -> int:
    return ticket.prompt.text_tokens if ticket.prompt is not None else 0
