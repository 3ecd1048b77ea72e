"""Schedules the questions of a stream: which are answered together, under which settings, and what if that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from adafv.errors import AdaFVError, DeviceError, InputError, OutOfMemoryError, ServerError
from adafv.headroom import Headroom
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.request import EncodingCost, Request
from adafv.settings import RunSettings
from adafv.streaming.answerer import Answerer, Pending, StreamStats, Suspect
from adafv.streaming.backstop import line_error, log_defect
from adafv.streaming.encoder_cache import Loaded
from adafv.streaming.flights import Flights
from adafv.streaming.image_cache import ImageCache
from adafv.streaming.lengths import in_order, length_of
from adafv.streaming.prefetching import Prefetcher
from adafv.streaming.sizing import BatchSize
from adafv.streaming.tickets import Encoded, Ticket
from adafv.tiled import View

_Part = TypeVar("_Part")
_Charge = Mapping[int, EncodingCost | None]


class Scheduler:
    """Fills the answers of tickets, batch by batch.

    A question that cannot be answered, whatever it raises, is found by halving its batch, under each run on its own; no
    other is lost by it. Only a lost device ends the run. After running out of memory, the batches to come are as large
    as what fitted.

    Args:
        model: answers batches.
        runs: all there are. With several runs the order rotates by one per batch, and each run's first batch is
            preceded by an unmeasured warm-up, so that their latencies can be compared.
        cache: of images that are encoded, as a whole or in part.
        prefetcher: where tickets come from.
        stats: kept up to date.
        size: tickets in a batch; learns from each.
        room: tells whether more would fit into memory.
    """

    def __init__(
        self,
        model: Answerer,
        runs: Sequence[RunSettings],
        *,
        cache: ImageCache,
        prefetcher: Prefetcher,
        stats: StreamStats,
        size: BatchSize,
        room: Headroom,
    ) -> None:
        self._model, self._runs = model, list(runs)
        self._cache, self._prefetcher = cache, prefetcher
        self._stats, self._size, self._room = stats, size, room
        self._together = any(run.begins_alike for run in self._runs)
        self._cold = set(self._runs) if len(self._runs) > 1 else set()
        self._flights = Flights(prefetcher.tell_news)
        self._encoded: list[Encoded] = []  # of the batch that is being answered
        self.suspects: list[Suspect] = []
        self.lost: DeviceError | None = None

    def answer_some(self, ready: Sequence[Ticket]) -> None:
        """Answer a batch: the oldest ticket and those that go best with it."""
        lengths = [length_of(ticket, self._model.pipeline, self._cache) for ticket in ready]
        batch = in_order(ready, lengths, by_image=self._together)[: self._size.now]
        for ticket in batch:
            ticket.taken = True
        self._answer(batch)

    def settle(self, *, wait: bool = False) -> bool:
        """Take the answers of other processes that have arrived; with `wait`, wait for one, and tell if one was due."""
        due = self._flights.count > 0
        self._flights.settle(wait=wait)
        return due

    def _answer(self, batch: list[Ticket]) -> None:
        self._encoded = encoded = []
        self._room.begin()
        whole = self._in_parts(batch, lambda part: encoded.extend(self._encode(part)), self._fail)
        roomy, start = self._room.doubles(), time.perf_counter()
        for run in self._runs:
            asked = [one for one in encoded if run in one.slots]
            if not asked:
                continue
            whole &= self._in_parts(asked, self._attempt(run), partial(self._give_up, run=run))
            roomy &= self._room.doubles()
        for one in encoded:
            for view in one.views.values():
                view.image.cosines.clear()
        self._encoded = []
        self._runs.append(self._runs.pop(0))
        if whole and len(encoded) == self._size.now:
            self._size.went(time.perf_counter() - start, room=roomy)
            self._prefetcher.reach(2 * self._size.now)
        self._stats.batch_size = self._size.now

    def _in_parts(
        self, batch: list[_Part], attempt: Callable[[list[_Part]], None], fail: Callable[[_Part, AdaFVError], None]
    ) -> bool:
        """Attempt a batch, and its halves if that fails; whether it went at once."""

        def fitting(part: list[_Part], *, last: bool = False) -> int:
            error = self._error_of(attempt, part)
            if error is None:
                return len(part)
            if len(part) == 1 and isinstance(error, OutOfMemoryError) and not last and self._let_go():
                return fitting(part, last=True)
            if len(part) == 1:
                fail(part[0], error)
                return 0
            middle = len(part) // 2
            fitted = max(fitting(part[:middle]), fitting(part[middle:]))
            if isinstance(error, OutOfMemoryError):
                self._size.fitted(fitted)
            return fitted

        return fitting(batch) == len(batch)

    def _let_go(self) -> bool:
        """Free what can be had anew: encodings that are held, and this batch's cosines; tells whether there was any."""
        views = [view for one in self._encoded for view in one.views.values()]
        cosines = [view.image.cosines for view in views if view.image.cosines]
        for known in cosines:
            known.clear()
        return self._cache.let_go() or bool(cosines)

    def _error_of(self, attempt: Callable[[list[_Part]], None], batch: list[_Part]) -> AdaFVError | None:
        """Attempt a batch; why it failed, if it did. Raises `DeviceError` where that ends everything."""
        try:
            attempt(batch)
        except Exception as error:
            return line_error(error, self._model.pipeline.computes)
        return None

    def _attempt(self, run: RunSettings) -> Callable[[list[Encoded]], None]:
        """Make what answers a batch under one run; where it raises, nothing is filled."""
        remote = self._model.pipeline.decoder.requests > 0

        def attempt(part: list[Encoded]) -> None:
            charges = [
                {slot: self._cache.charge(one.key, one.ticket.runs[slot], one.views[run]) for slot in one.slots[run]}
                for one in part
            ]
            requests = [
                _request(one, one.views[run], next(iter(charge.values())))
                for one, charge in zip(part, charges, strict=True)
            ]
            try:
                if run in self._cold and not remote:
                    self._cold.discard(run)
                    self._model.begin(requests, replace(run, max_new_tokens=min(2, run.max_new_tokens)))
                begun = self._model.begin(requests, run)
                answers = [] if remote else [pending.answer() for pending in begun]
            except Exception:
                for one, charge in zip(part, charges, strict=True):
                    self._refund(one, charge, run)
                raise
            for one, answer in zip(part, answers, strict=not remote):
                one.fill(run, answer)
            for one, charge, pending in zip(part, charges, begun if remote else (), strict=remote):
                self._flights.add(pending.decoded, partial(self._take, one, run, charge, pending))

        return attempt

    def _take(self, one: Encoded, run: RunSettings, charge: _Charge, pending: Pending) -> None:
        """Take an answer that another process has made; what cannot be gone on without is remembered."""
        try:
            one.fill(run, pending.answer())
        except Exception as error:
            self._refund(one, charge, run)
            try:
                self._give_up(one, line_error(error, self._model.pipeline.computes), run)
            except DeviceError as lost:
                self.lost = self.lost or lost
                if isinstance(lost, ServerError) and lost.strikes:
                    self.suspects.append(Suspect(one.question, run, lost.strikes))

    def _refund(self, one: Encoded, charge: _Charge, run: RunSettings) -> None:
        for slot, cost in charge.items():
            if cost is not None:
                self._cache.refund(one.key, one.ticket.runs[slot], cost, one.views[run])

    def _give_up(self, one: Encoded, error: AdaFVError, run: RunSettings) -> None:
        failed = self._failed(one.question, run, error)
        one.fill(run, replace(failed, image=one.question.about(one.key)))

    def _fail(self, ticket: Ticket, error: AdaFVError) -> None:
        if ticket.question is not None:
            ticket.answers = [self._failed(ticket.question, run, error) for run in ticket.runs]

    def _failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        log_defect(question.question_id, error)
        return self._model.failed(question, run, error)

    def _encode(self, batch: list[Ticket]) -> list[Encoded]:
        """Encode the images of tickets; those with one that cannot be read are answered."""
        keys: dict[int, str] = {}
        images: dict[str, Any] = {}
        fresh: dict[str, Loaded] = {}
        for ticket in batch:
            try:
                key, image = self._image(ticket)
            except Exception as error:
                self._fail(ticket, line_error(error))
                continue
            keys[ticket.number] = key
            if isinstance(image, Loaded):
                fresh.setdefault(key, image)
            else:
                images[key] = image
        try:
            images |= self._cache.encode(fresh)
        finally:
            for key in keys.values():
                self._prefetcher.forget(key)
        found = [ticket for ticket in batch if ticket.number in keys and ticket.prompt is not None]
        views = self._cache.views([(images[keys[one.number]], cast(Prompt, one.prompt), one.runs) for one in found])
        encoded = self._cache.encoded - self._stats.images_encoded
        self._stats.images_encoded += encoded
        self._stats.cache_hits += len(keys) - encoded
        self._stats.encodings_read, self._stats.encodings_bytes = self._cache.stored
        return [Encoded.of(ticket, keys[ticket.number], own) for ticket, own in zip(found, views, strict=True)]

    def _image(self, ticket: Ticket) -> tuple[str, Any]:
        """Key and encoding of a ticket's image, or what there is to encode; raises what reading it raised."""
        if ticket.image is None or ticket.question is None:
            raise InputError("a ticket without an image", "")
        image = ticket.image.result()
        known = self._cache.get(image.key)
        if known is not None:
            return image.key, known
        if image.loaded is None:  # it was encoded when the ticket came, and has left the cache since
            return image.key, self._prefetcher.load(ticket.question.image)
        return image.key, image.loaded.result()


def _request(one: Encoded, view: View, cost: EncodingCost | None) -> Request:
    return Request(one.question, one.prompt, view.image, cost, one.key, one.ticket.strikes, looked_s=view.looked_s)
