"""Decoding step by step: by transformers' `generate`, and in compiled steps (`--compile`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from adafv.bench.machine import Machine
from adafv.bench.records import Row
from adafv.bench.rounds import Rounds, Sample, Variant
from adafv.bench.subject import Subject
from adafv.errors import OutOfMemoryError
from adafv.generating import Generating
from adafv.request import Request
from adafv.timing import Stopwatch

_PLAIN, _COMPILED = "generate", "compiled"
_STAGES = ("decode", "tpot")


class Compiled:
    """The section `compiled`: seconds from token to token, and those of the first batch, which is compiled for.

    Args:
        subject: what is asked; `stepping.refusal` has nothing against its model.
        keep: budget in visual tokens.
        pruner: that keeps them.
        batch_sizes: questions at once.
        new_tokens: that each answer has, unless the model ends it.
    """

    name = "compiled"

    def __init__(self, subject: Subject, keep: int, pruner: str, batch_sizes: Sequence[int], new_tokens: int) -> None:
        self._subject, self._run = subject, subject.run_settings(keep, new_tokens, pruner)
        self._sizes = sorted(set(batch_sizes))
        self._decoders = {name: Generating(subject.stock, compile=name == _COMPILED) for name in (_PLAIN, _COMPILED)}
        self._first: dict[str, float] = {}
        self._full: set[str] = set()
        self._requests: list[Request] = []

    def rounds(self) -> Rounds:
        """List the variants."""
        return Rounds([Variant(_named(*way), partial(self._decode, *way)) for way in self._ways])

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was measured."""
        return [self._row(*way, rounds) for way in self._ways] if rounds.samples else []

    @property
    def _ways(self) -> list[tuple[str, int]]:
        return [(who, size) for size in self._sizes for who in self._decoders]

    def _decode(self, who: str, size: int) -> Sample:
        pipeline, watch = self._subject.model.pipeline, Stopwatch(self._subject.devices)
        decoder = self._decoders[who]
        name, unfit, before, pipeline.decoder = _named(who, size), decoder.unfit, pipeline.decoder, decoder
        try:
            start = watch.now()
            latency = self._subject.model.run(self._asked()[:size], self._run)[0].latency_s
            self._first.setdefault(name, watch.now() - start)
        except OutOfMemoryError:
            self._full.add(name)
            return {}
        finally:
            pipeline.decoder = before
        if decoder.unfit > unfit:  # what was answered then was not answered in compiled steps
            self._full.add(name)
            return {}
        taken = {} if latency is None or decoder.plain else vars(latency)
        return {stage: taken[stage] for stage in _STAGES if taken.get(stage) is not None}

    def _asked(self) -> list[Request]:
        """Encode a picture when it is first needed: the section may never run."""
        model, size = self._subject.model, self._sizes[-1]
        if not self._requests:
            encoding, _ = model.encode(self._subject.pictures[0], self._run)
            asked = self._subject.questions(size, size)
            self._requests = [Request(one, model.render(one, self._run), encoding, None) for one in asked]
        return self._requests

    def _row(self, who: str, size: int, rounds: Rounds) -> Row:
        name, plain = _named(who, size), _named(_PLAIN, size)
        gain = rounds.speedup(name, plain, "tpot") if who == _COMPILED else None
        stages = {stage: rounds.spread(name, stage) for stage in _STAGES}
        return Row(
            section=self.name,
            subject=self._subject.name,
            variant=name,
            settings={
                "batch_size": size,
                "keep": self._run.keep,
                "pruner": self._run.pruner,
                "compile": who == _COMPILED,
                "first_batch_s": self._first.get(name),
            },
            rounds=len(rounds.values(name, "decode")),
            seconds={stage: spread for stage, spread in stages.items() if spread is not None},
            speedups=() if gain is None else (gain,),
            notes=(self._note(who, name, plain),) if who == _COMPILED or name in self._full else (),
        )

    def _note(self, who: str, name: str, plain: str) -> str:
        if name in self._full:
            return "more than the memory holds"
        more = self._first[name] - self._first.get(plain, 0.0)
        return self._decoders[who].plain or f"the first batch took {more:.0f} s more"


def _named(who: str, size: int) -> str:
    return f"{who}, batch {size}"
