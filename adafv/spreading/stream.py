"""A stream of answers that actors make, in the order of the questions."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import fields

from adafv.errors import DeviceError, InternalError, PoisonError
from adafv.records import Answer, Failure
from adafv.settings import BatchSettings, RunSettings
from adafv.spreading.actors import Actors, Death
from adafv.spreading.blocks import Block, Blocks
from adafv.spreading.worker import Done, Fault, Loaded
from adafv.streaming.answerer import StreamStats, Suspect
from adafv.streaming.runs import Asked

DEADLY = 2
"""Actors that die at a block of several questions before each of these is asked alone, and then at one alone."""
POISONED = 8
"""Questions in a row that actors die of before the actors are the reason, and not the questions."""
_NEWS_S = 0.2  # how soon a stop, or what was read, is noticed
_HALT_S = 60.0  # for a batch that runs


class SpreadStream(Iterator[list[Answer]]):
    """For each question its answers under some runs, in input order; actors make them, in any order.

    A block whose actor died goes to another one. The second time, its questions are asked one by one, and the one that
    two actors die at alone gets a `PoisonError`; after `POISONED` of them, none answered in between, the run ends.
    While one is asked that a server died at, no actor is at another: they share the servers.

    Args:
        actors: that are loaded, or will be.
        model_id: what answers name the model.
        items: questions; answers among them are passed through in their place.
        runs, batch: as of `adafv.streaming.streams.SweepStream`.
        lines: of a block, about.
        stop: when set, actors finish their batches, what can be delivered in order is, and the stream ends.
    """

    def __init__(
        self,
        actors: Actors,
        model_id: str,
        items: Iterable[Asked | Sequence[Answer]],
        runs: Sequence[RunSettings],
        batch: BatchSettings,
        *,
        lines: int,
        stop: threading.Event | None = None,
    ) -> None:
        self.stats, self.suspects = StreamStats(), list[Suspect]()
        self._actors, self._model_id, self._runs, self._batch = actors, model_id, tuple(runs), batch
        self._lines, self._stop = lines, stop or threading.Event()
        self._blocks = Blocks(items)
        self._fault: Fault | None = None
        self._is_suspect = False  # what was given last
        self._poisoned = 0  # since an answer
        self._answers = self._deliver()

    def __next__(self) -> list[Answer]:
        return next(self._answers)

    def close(self) -> None:
        """End the stream early; actors that are at a block go on until they are ended themselves."""
        self._answers.close()
        self._blocks.close()

    def _deliver(self) -> Generator[list[Answer]]:
        try:
            while not (self._stop.is_set() or self._fault or self._blocks.drained()):
                self._give()
                self._listen()
                yield from self._ready()
            yield from self._finish()
            if self._fault is not None:
                raise self._fault.error()
        finally:
            self._actors.turn()
            self._blocks.close()

    def _ready(self) -> Iterator[list[Answer]]:
        while (answers := self._blocks.pop()) is not None:
            yield answers

    def _finish(self) -> Iterator[list[Answer]]:
        """Have the actors finish what they are at, after a stop or a fault."""
        self._actors.halt()
        for _ in range(int(_HALT_S / _NEWS_S)):
            if not self._actors.busy:
                break
            self._listen()
        yield from self._ready()

    def _give(self) -> None:
        while self._has_room() and (block := self._blocks.take(self._lines)) is not None:
            (first, *more), struck = block.items, max(item.strikes for item in block.items)
            if struck and more:  # suspects of an earlier run: each alone
                self._blocks.put_back(block.apart())
            elif first.strikes >= DEADLY:
                self._poison(block)
            elif struck and self._actors.busy:
                self._blocks.put_back([block])
                break
            else:
                self._actors.give(block, self._runs, self._batch)
                self._is_suspect = bool(struck)

    def _has_room(self) -> bool:
        return self._actors.idle and not (self._is_suspect and self._actors.busy)

    def _listen(self) -> None:
        for news in self._actors.news(_NEWS_S):
            if isinstance(news, Fault):
                self._fault = self._fault or news
            elif isinstance(news, Death):
                if news.block is not None:
                    self._died(news.block, news.reason)
            elif not isinstance(news, Loaded):
                self._take(*news)

    def _take(self, block: Block, done: Done) -> None:
        self._poisoned = 0
        for number, answers in zip(block.numbers, done.answers, strict=False):
            self._blocks.answer(number, answers)
        for field in fields(StreamStats):
            if field.name != "batch_size":
                setattr(self.stats, field.name, getattr(self.stats, field.name) + getattr(done.stats, field.name))
        self.stats.batch_size = max(self.stats.batch_size, done.stats.batch_size)
        self.suspects += done.suspects
        if len(done.answers) < len(block.items) and done.fault is None and not self._stop.is_set():
            done.fault = Fault(InternalError, "an actor has left questions unanswered", "report it")
        self._fault = self._fault or done.fault

    def _died(self, block: Block, reason: str) -> None:
        block.deaths += 1
        if block.deaths < DEADLY:
            self._blocks.put_back([block])
        elif len(block.items) > 1:
            self._blocks.put_back(block.apart())
        else:
            self._poison(block)
            self._poisoned += 1
            if self._poisoned == POISONED:
                what = f"actors died of {POISONED} questions one after the other, and none was answered in between"
                raise DeviceError(f"{what}: {reason}", "see Ray's logs, then go on with --resume")

    def _poison(self, block: Block) -> None:
        (item,) = block.items
        question = item.question
        error = PoisonError(
            f"{DEADLY} actors, or servers, died at this question, each while it was at nothing else",
            "look at its image and at Ray's logs; memory is a frequent reason",
        )
        answers = [
            Answer(
                question_id=question.question_id,
                prompt=question.text,
                text=None,
                model_id=self._model_id,
                metadata=question.metadata,
                image=question.about(None),
                **run.keeping(question.keep).named,
                error=Failure(type(error).__name__, error.what, error.fix),
            )
            for run in item.runs
        ]
        self._blocks.answer(block.numbers[0], answers)
