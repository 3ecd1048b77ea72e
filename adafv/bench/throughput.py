"""Many questions: questions per second by batch size and where the time goes, unpruned, pruned, and by transformers.

Several questions about an image share its prefill where nothing is pruned, which is measured with and without, and
where they choose its tokens together (`--select`), which is measured beside each question's own choice, as published;
the cheapest at so many questions is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from adafv.bench.machine import Machine
from adafv.bench.peak import Peak
from adafv.bench.records import ALONE, STOCK, UNPRUNED, Row
from adafv.bench.rounds import Rounds, Sample, Spread, Variant
from adafv.bench.stages import STAGES, Stages
from adafv.bench.stock import Stock
from adafv.bench.subject import Subject
from adafv.engine import Model
from adafv.errors import InputError, OutOfMemoryError
from adafv.generating import Generating
from adafv.memory import is_out_of_memory
from adafv.pruners import TWO_LISTS
from adafv.records import Answer
from adafv.settings import RunSettings, Select
from adafv.timing import Stopwatch

_FEW = 4  # questions that stock transformers answers one by one: each costs the same


@dataclass(frozen=True)
class _Way:
    """One way of answering: who does it, with which budget, how many at once."""

    who: str
    keep: int | str
    batch_size: int
    select: Select = "question"

    @property
    def name(self) -> str:
        return f"{self.who}, batch {self.batch_size}"


class Throughput:
    """The section `throughput`: preprocessing included, answers in order, images encoded once.

    Args:
        subject: what is asked.
        keep: budget in visual tokens.
        pruner: that keeps them.
        batch_sizes: to be tried.
        per_picture: questions about each picture.
        new_tokens: that each answer has, unless the model ends it.
    """

    name = "throughput"

    def __init__(
        self, subject: Subject, keep: int, pruner: str, batch_sizes: Sequence[int], per_picture: int, new_tokens: int
    ) -> None:
        self._subject, self._per_picture, self._new = subject, per_picture, new_tokens
        self._pruner = pruner
        self._count = max(2 * max(batch_sizes), 2 * per_picture)
        pruned = f"{pruner} {keep}"
        together = _together(subject.run_settings(keep, new_tokens, pruner)) if per_picture > 1 else ()
        self._ways = [_Way(STOCK, "all", 1)]
        for size in sorted(set(batch_sizes)):
            self._ways += [_Way(STOCK, "all", size)] * (size > 1)
            self._ways += [_Way(ALONE, "all", size)] * (size > 1 < per_picture)
            self._ways += [_Way(UNPRUNED, "all", size), _Way(pruned, keep, size)]
            self._ways += [_Way(f"{pruned} (select {one})", keep, size, one) for one in together if size > 1]
        self._peaks: dict[str, int | None] = {}
        self._full: dict[str, str] = {}
        self._spent: dict[str, Stages] = {}
        self._whole: Answer | None = None  # an unpruned one, charged for all: stock does at least as much for every one

    def rounds(self) -> Rounds:
        """List the variants."""
        return Rounds([Variant(way.name, partial(self._run, way)) for way in self._ways])

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was measured."""
        return [self._row(way, rounds, machine) for way in self._ways] if rounds.samples else []

    def _run(self, way: _Way) -> Sample:
        if way.name in self._full:
            return {}
        peak, watch = Peak(self._subject.devices), Stopwatch(self._subject.devices)
        start = watch.now()
        try:
            with peak.watched():
                answers = [] if way.who == STOCK else self._ours(way)
                count = self._stock(way) if way.who == STOCK else len(answers)
        except (RuntimeError, OutOfMemoryError) as error:
            if not (isinstance(error, OutOfMemoryError) or is_out_of_memory(error)):
                raise
            self._full[way.name] = "more than the memory holds"
            return {}
        whole = watch.now() - start
        self._peaks[way.name] = peak.bytes
        if way.who == STOCK:
            return {"question": whole / count}
        if way.who == UNPRUNED:
            self._whole = next(one for one in answers if one.flops is not None and one.flops.vision)
        self._spent[way.name] = spent = Stages.of(answers)
        return {"question": whole / count} | spent.per_answer(whole)

    def _stock(self, way: _Way) -> int:
        stock, count = Stock(self._subject), _FEW if way.batch_size == 1 else self._count
        questions = self._subject.questions(count, self._per_picture)
        for start in range(0, count, way.batch_size):
            stock.answer(stock.inputs(questions[start : start + way.batch_size]), self._new)
        return count

    def _ours(self, way: _Way) -> list[Answer]:
        run = replace(self._subject.run_settings(way.keep, self._new, self._pruner), select=way.select)
        questions = self._subject.questions(self._count, self._per_picture)
        with _sharing(self._subject.model, share=way.who != ALONE):
            answers = list(self._subject.model.batch(questions, run, batch_size=way.batch_size))
        failed = next((answer.error for answer in answers if answer.error is not None), None)
        if failed is not None and failed.type == "OutOfMemoryError":
            raise OutOfMemoryError(failed.message, failed.fix)
        if failed is not None:
            raise RuntimeError(failed.message)
        return answers

    def _row(self, way: _Way, rounds: Rounds, machine: Machine) -> Row:
        values = rounds.values(way.name, "question")
        batched = f"{STOCK}, batch {way.batch_size}"
        others = dict.fromkeys((f"{STOCK}, batch 1", batched, f"{UNPRUNED}, batch {way.batch_size}"))
        mine = [] if way.who == STOCK and way.batch_size == 1 else [other for other in others if other != way.name]
        if way.who == STOCK:
            mine = mine[:1]
        found = [rounds.speedup(way.name, other, "question") for other in mine]
        pruned, spent = way.who not in (STOCK, UNPRUNED, ALONE), self._stages(way)
        ratio = self._ratio(way) if pruned else None
        gain = rounds.speedup(way.name, f"{UNPRUNED}, batch {way.batch_size}", "question") if ratio else None
        taken = {stage: rounds.spread(way.name, stage) for stage in ("question", *STAGES, "rest")}
        notes = [self._full[way.name]] if way.name in self._full else self._verdict(way, rounds)
        return Row(
            section=self.name,
            subject=self._subject.name,
            variant=way.name,
            settings={
                "batch_size": way.batch_size,
                "keep": way.keep,
                "questions_per_image": self._per_picture,
                **({"pruner": self._pruner, "select": way.select} if pruned else {}),
            },
            rounds=len(values),
            seconds={stage: spread for stage, spread in taken.items() if spread is not None},
            rate=Spread.of([1 / value for value in values]) if values else None,
            flops={} if spent is None else spent.flops_per_answer(),
            bound_s={} if spent is None else spent.bounds(self._subject, machine),
            speedups=tuple(one for one in found if one is not None),
            flops_ratio=ratio,
            attained=gain.median / ratio if gain and ratio else None,
            peak_bytes=self._peaks.get(way.name),
            notes=tuple(notes),
        )

    def _stages(self, way: _Way) -> Stages | None:
        """Find what a way's answers take; stock encodes and prefills every question's picture."""
        if way.who != STOCK:
            return self._spent.get(way.name)
        return None if self._whole is None else Stages.alone(self._whole, way.batch_size)

    def _ratio(self, way: _Way) -> float | None:
        """Divide the FLOPs of the unpruned way with batches as large by those of this one."""
        unpruned, mine = self._spent.get(f"{UNPRUNED}, batch {way.batch_size}"), self._spent.get(way.name)
        return unpruned.total / mine.total if unpruned and mine else None

    def _verdict(self, way: _Way, rounds: Rounds) -> list[str]:
        """Say of our fastest way at a batch size that it is, and of which others the rounds do not tell it apart."""
        ours = [one for one in self._ways if one.who != STOCK and one.batch_size == way.batch_size]
        spreads = {one.name: rounds.spread(one.name, "question") for one in ours}
        medians = {name: spread.median for name, spread in spreads.items() if spread is not None}
        if (
            self._per_picture == 1
            or way.who == STOCK
            or not medians
            or way.name != min(medians, key=medians.__getitem__)
        ):
            return []
        gains = [(one.who, rounds.speedup(way.name, one.name, "question")) for one in ours if one != way]
        close = [who for who, gain in gains if gain is not None and not gain.told_apart]
        but = f", not told apart from {' and '.join(close)}" if close else ""
        return [f"the cheapest at {self._per_picture} questions an image{but}"]


def _together(run: RunSettings) -> tuple[Select, ...]:
    """List the ways to choose for all questions about an image, where each does not get the same tokens anyway."""
    if run.by_image:
        return ()
    return ("image", "split") if run.pruner in TWO_LISTS else ("image",)


@contextmanager
def _sharing(model: Model, *, share: bool) -> Iterator[None]:
    """Let prompts share what they begin with, or not, as long as the `with` lasts."""
    decoder = model.pipeline.decoder
    if not isinstance(decoder, Generating):
        raise InputError("a bench is of a model that is loaded here", "leave the server out")
    before, decoder.share = decoder.share, share
    try:
        yield
    finally:
        decoder.share = before
