"""Schedules the questions of a stream: which are answered together, under which settings, and what if that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from adafv.encoding import ImageEncoding
from adafv.errors import AdaFVError, InputError, OutOfMemoryError
from adafv.pipeline import Pipeline
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.streaming.backstop import line_error, log_defect
from adafv.streaming.encoder_cache import EncoderCache, Loaded
from adafv.streaming.prefetching import Prefetcher, Ticket
from adafv.streaming.runs import effective

_Part = TypeVar("_Part")


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
        """Make the prompt of a question."""

    def run(self, requests: Sequence[Request], run: RunSettings) -> list[Answer]:
        """Answer a batch."""

    def failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        """Make the answer of a question that cannot be answered."""


@dataclass
class _Encoded:
    """A ticket whose image is encoded. `slots[run]`: those of `ticket.answers` that executing `run` fills."""

    ticket: Ticket
    question: Question
    prompt: Prompt
    key: str
    encoding: ImageEncoding
    slots: dict[RunSettings, list[int]]

    @classmethod
    def of(cls, ticket: Ticket, key: str, encoding: ImageEncoding) -> _Encoded:
        """Group a ticket's runs by what they amount to for this image, so that equal ones are executed once."""
        if ticket.question is None or ticket.prompt is None:
            raise InputError("a ticket without a prompt", "")
        firsts: dict[RunSettings, RunSettings] = {}
        slots: dict[RunSettings, list[int]] = {}
        for slot, run in enumerate(ticket.runs):
            first = firsts.setdefault(effective(run, encoding.visual), run)
            slots.setdefault(first, []).append(slot)
        return cls(ticket, ticket.question, ticket.prompt, key, encoding, slots)

    def fill(self, run: RunSettings, answer: Answer) -> None:
        """Put an answer into the slots of `run`, each under its own settings' names."""
        for slot in self.slots[run]:
            own = self.ticket.runs[slot]
            same = own == run
            self.ticket.answers[slot] = answer if same else replace(answer, pruner=own.pruner, keep=own.budget.text)


class Scheduler:
    """Fills the answers of tickets, batch by batch.

    A question that cannot be answered, whatever it raises, is found by halving its batch, under each run on its own; no
    other is lost by it. Only a lost device ends the run. After running out of memory, the batches to come are as large
    as what fitted.

    Args:
        model: answers batches.
        runs: all there are. With several runs the order rotates by one per batch, and each run's first batch is
            preceded by an unmeasured warm-up, so that their latencies can be compared.
        cache: of encoded images.
        prefetcher: where tickets come from.
        stats: kept up to date; its `batch_size` follows what fits.
        largest: tickets in a batch at most.
    """

    def __init__(
        self,
        model: Answerer,
        runs: Sequence[RunSettings],
        *,
        cache: EncoderCache,
        prefetcher: Prefetcher,
        stats: StreamStats,
        largest: int,
    ) -> None:
        self._model, self._runs = model, list(runs)
        self._cache, self._prefetcher = cache, prefetcher
        self._stats, self._largest = stats, largest
        self._cold = set(self._runs) if len(self._runs) > 1 else set()

    def answer_some(self, ready: Sequence[Ticket]) -> None:
        """Answer a batch: the oldest ticket and those nearest to it in length, for little padding."""

        def distance(ticket: Ticket) -> tuple[int, int]:
            return abs(_length(ticket) - _length(ready[0])), ticket.number

        self._answer(sorted(ready, key=distance)[: self._stats.batch_size])

    def _answer(self, batch: list[Ticket]) -> None:
        encoded: list[_Encoded] = []
        roomy = self._in_parts(batch, lambda part: encoded.extend(self._encode(part)), self._fail)
        for run in self._runs:
            asked = [one for one in encoded if run in one.slots]
            if not asked:
                continue

            def give_up(one: _Encoded, error: AdaFVError, run: RunSettings = run) -> None:
                failed = self._failed(one.question, run, error)
                one.fill(run, replace(failed, image=one.question.about(one.key)))

            attempt = self._attempt(run)
            roomy = self._in_parts(asked, attempt, give_up) and self._model.pipeline.has_room() and roomy
        self._runs.append(self._runs.pop(0))
        if roomy and encoded and len(batch) == self._stats.batch_size:
            self._stats.batch_size = min(self._largest, 2 * self._stats.batch_size)

    def _in_parts(
        self, batch: list[_Part], attempt: Callable[[list[_Part]], None], fail: Callable[[_Part, AdaFVError], None]
    ) -> bool:
        """Attempt a batch, and its halves if that fails; whether it went at once."""

        def fitting(part: list[_Part]) -> int:
            error = self._error_of(attempt, part)
            if error is None:
                return len(part)
            if len(part) == 1:
                fail(part[0], error)
                return 0
            middle = len(part) // 2
            fitted = max(fitting(part[:middle]), fitting(part[middle:]))
            if isinstance(error, OutOfMemoryError):
                self._largest = self._stats.batch_size = max(1, fitted)
            return fitted

        return fitting(batch) == len(batch)

    def _error_of(self, attempt: Callable[[list[_Part]], None], batch: list[_Part]) -> AdaFVError | None:
        """Attempt a batch; why it failed, if it did. Raises `DeviceError` where that ends everything."""
        try:
            attempt(batch)
        except Exception as error:
            return line_error(error, self._model.pipeline.computes)
        return None

    def _attempt(self, run: RunSettings) -> Callable[[list[_Encoded]], None]:
        """Make what answers a batch under one run; where it raises, nothing is filled."""

        def attempt(part: list[_Encoded]) -> None:
            charges = [
                {slot: self._cache.charge(one.key, one.ticket.runs[slot]) for slot in one.slots[run]} for one in part
            ]
            requests = [
                Request(one.question, one.prompt, one.encoding, next(iter(charge.values())), one.key)
                for one, charge in zip(part, charges, strict=True)
            ]
            try:
                if run in self._cold:
                    self._cold.discard(run)
                    self._model.run(requests, replace(run, max_new_tokens=min(2, run.max_new_tokens)))
                answers = self._model.run(requests, run)
            except Exception:
                for one, charge in zip(part, charges, strict=True):
                    for slot, cost in charge.items():
                        if cost is not None:
                            self._cache.refund(one.key, one.ticket.runs[slot], cost)
                raise
            for one, answer in zip(part, answers, strict=True):
                one.fill(run, answer)

        return attempt

    def _fail(self, ticket: Ticket, error: AdaFVError) -> None:
        if ticket.question is not None:
            ticket.answers = [self._failed(ticket.question, run, error) for run in ticket.runs]

    def _failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        log_defect(question.question_id, error)
        return self._model.failed(question, run, error)

    def _encode(self, batch: list[Ticket]) -> list[_Encoded]:
        """Encode the images of tickets; those with one that cannot be read are answered."""
        keys: dict[int, str] = {}
        images: dict[str, ImageEncoding] = {}
        fresh: dict[str, Loaded] = {}
        for ticket in batch:
            try:
                key, loaded = self._image(ticket)
            except Exception as error:
                self._fail(ticket, line_error(error))
                continue
            keys[ticket.number] = key
            encoding = self._cache.get(key)
            if encoding is not None:
                images[key] = encoding
            elif loaded is not None:
                fresh.setdefault(key, loaded)
        try:
            images |= self._cache.encode(fresh)
        finally:
            for key in keys.values():
                self._prefetcher.forget(key)
        self._stats.images_encoded += len(fresh)
        self._stats.cache_hits += len(keys) - len(fresh)
        return [
            _Encoded.of(ticket, keys[ticket.number], images[keys[ticket.number]])
            for ticket in batch
            if ticket.number in keys
        ]

    def _image(self, ticket: Ticket) -> tuple[str, Loaded | None]:
        """Key and, unless it is encoded already, pixels of a ticket's image; raises what reading it raised."""
        if ticket.image is None or ticket.question is None:
            raise InputError("a ticket without an image", "")
        image = ticket.image.result()
        if image.key in self._cache:
            return image.key, None
        if image.loaded is None:  # it was encoded when the ticket came, and has left the cache since
            return image.key, self._prefetcher.load(ticket.question.image)
        return image.key, image.loaded.result()


def _length(ticket: Ticket) -> int:
    return ticket.prompt.text_tokens if ticket.prompt is not None else 0
