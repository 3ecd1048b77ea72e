"""A batch of questions, answered under every run that they are asked under while their images are encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from adafv.errors import AdaFVError, InputError, OutOfMemoryError
from adafv.families.llava import ImageEncoding
from adafv.pipeline import Pipeline
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.settings import RunSettings
from adafv.streaming.encoder_cache import Encoder, EncodingCost, Loaded
from adafv.streaming.prefetching import Feeder, Ticket
from adafv.streaming.runs import effective

_One = TypeVar("_One")


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


@dataclass
class _Pending:
    """A ticket whose image is encoded; `places` are those of its answers, by what is to be run for them."""

    ticket: Ticket
    question: Question
    prompt: Prompt
    key: str
    encoding: ImageEncoding
    places: dict[RunSettings, list[int]]


class Answering:
    """Sets the answers of tickets, batch by batch.

    What cannot be answered is found by halving, under each run on its own; nothing else is lost by it. Out of memory,
    the batches to come are as large as what fitted.

    Args:
        model: answers batches.
        runs: all there are. The order in which a batch goes through them is turned by one from batch to batch, and
            each goes once without being counted where there are several: or comparing them would not be fair.
        encoder: of images.
        feeder: where tickets come from.
        stats: kept up to date; its `batch_size` follows what fits.
        most: tickets in a batch.
    """

    def __init__(
        self,
        model: Answerer,
        runs: Sequence[RunSettings],
        encoder: Encoder,
        feeder: Feeder,
        stats: StreamStats,
        most: int,
    ) -> None:
        self._model, self._runs = model, list(runs)
        self._encoder, self._feeder = encoder, feeder
        self._stats, self._most = stats, most
        self._cold = set(self._runs) if len(self._runs) > 1 else set()

    def answer(self, batch: list[Ticket]) -> None:
        """Set all answers of a batch."""
        encoded: list[_Pending] = []
        roomy = self._in_parts(batch, lambda part: encoded.extend(self._encoded(part)), self._fail)
        for run in self._runs:
            asked = [one for one in encoded if run in one.places]
            if not asked:
                continue

            def give_up(one: _Pending, error: AdaFVError, run: RunSettings = run) -> None:
                self._fail_under(one, run, error)

            attempt = self._attempt(run)
            roomy = self._in_parts(asked, attempt, give_up) and self._model.pipeline.has_room() and roomy
        self._runs.append(self._runs.pop(0))
        if roomy and encoded and len(batch) == self._stats.batch_size:
            self._stats.batch_size = min(self._most, 2 * self._stats.batch_size)

    def _in_parts(
        self, batch: list[_One], attempt: Callable[[list[_One]], None], fail: Callable[[_One, AdaFVError], None]
    ) -> bool:
        """Attempt a batch, and its halves if that fails; whether it went at once."""

        def fitting(part: list[_One]) -> int:
            error = _error_of(attempt, part)
            if error is None:
                return len(part)
            if len(part) == 1:
                fail(part[0], error)
                return 0
            middle = len(part) // 2
            fitted = max(fitting(part[:middle]), fitting(part[middle:]))
            if isinstance(error, OutOfMemoryError):
                self._most = self._stats.batch_size = max(1, fitted)
            return fitted

        return fitting(batch) == len(batch)

    def _attempt(self, run: RunSettings) -> Callable[[list[_Pending]], None]:
        """What answers a batch under one run; raises `InputError` or `OutOfMemoryError`, and nothing is answered."""

        def attempt(part: list[_Pending]) -> None:
            bills = [{place: self._encoder.bill(one.key, one.ticket.runs[place]) for place in one.places[run]}
                     for one in part]  # fmt: skip
            tasks = [
                Task(one.question, one.prompt, one.encoding, next(iter(bill.values())))
                for one, bill in zip(part, bills, strict=True)
            ]
            try:
                if run in self._cold:
                    self._cold.discard(run)
                    self._model.run(tasks, replace(run, max_new_tokens=min(2, run.max_new_tokens)))
                answers = self._model.run(tasks, run)
            except (InputError, OutOfMemoryError):
                for one, bill in zip(part, bills, strict=True):
                    for place, cost in bill.items():
                        if cost is not None:
                            self._encoder.owe(one.key, one.ticket.runs[place], cost)
                raise
            for one, answer in zip(part, answers, strict=True):
                _set(one, run, answer)

        return attempt

    def _fail_under(self, one: _Pending, run: RunSettings, error: AdaFVError) -> None:
        _set(one, run, self._model.failed(one.question, run, error))

    def _fail(self, ticket: Ticket, error: AdaFVError) -> None:
        if ticket.question is not None:
            ticket.answers = [self._model.failed(ticket.question, run, error) for run in ticket.runs]

    def _encoded(self, batch: list[Ticket]) -> list[_Pending]:
        """The tickets with an image that can be read, each image encoded; the others are answered."""
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
        self._stats.images_encoded += len(fresh)
        self._stats.cache_hits += len(keys) - len(fresh)
        return [
            _pending(ticket, keys[ticket.number], images[keys[ticket.number]])
            for ticket in batch
            if ticket.number in keys
        ]

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


def _pending(ticket: Ticket, key: str, encoding: ImageEncoding) -> _Pending:
    """A ticket that can be answered; runs that do the same with its image are run once."""
    if ticket.question is None or ticket.prompt is None:
        raise InputError("a ticket without a prompt", "")
    firsts: dict[RunSettings, RunSettings] = {}
    places: dict[RunSettings, list[int]] = {}
    for place, run in enumerate(ticket.runs):
        first = firsts.setdefault(effective(run, encoding.visual), run)
        places.setdefault(first, []).append(place)
    return _Pending(ticket, ticket.question, ticket.prompt, key, encoding, places)


def _set(one: _Pending, run: RunSettings, answer: Answer) -> None:
    """Put an answer in its place, and in those of the runs that do the same."""
    for place in one.places[run]:
        own = one.ticket.runs[place]
        same = own == run
        one.ticket.answers[place] = answer if same else replace(answer, pruner=own.pruner, keep=own.budget.text)


def _error_of(attempt: Callable[[list[_One]], None], batch: list[_One]) -> AdaFVError | None:
    """Why an attempt failed: without a traceback, which would keep its tensors in memory meanwhile."""
    try:
        attempt(batch)
    except (InputError, OutOfMemoryError) as error:
        return type(error)(error.what, error.fix)
    return None
