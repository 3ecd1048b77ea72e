"""How often a batch makes the host wait for an accelerator, which leaves it idle."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import torch

from adafv.bench.machine import Machine
from adafv.bench.records import Row
from adafv.bench.rounds import Rounds, Sample, Variant
from adafv.bench.subject import Subject
from adafv.request import Request


class Synchronisations:
    """The section `synchronisations`: counted by torch's own debug mode, over choosing tokens and over a whole answer.

    Args:
        subject: what is asked, on a CUDA device.
        keep: budget in visual tokens.
        names: of the pruners.
        batch_size: questions at once.
        new_tokens: of each answer.
    """

    name = "synchronisations"

    def __init__(self, subject: Subject, keep: int, names: Sequence[str], batch_size: int, new_tokens: int) -> None:
        self._subject, self._keep, self._size, self._new = subject, keep, batch_size, new_tokens
        self._names = names

    def rounds(self) -> Rounds:
        """List the variants."""
        return Rounds([Variant(name, partial(self._count, name)) for name in self._names])

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was counted."""
        return [self._row(name, rounds) for name in self._names] if rounds.samples else []

    def _count(self, name: str) -> Sample:
        model, run = self._subject.model, self._subject.run_settings(self._keep, self._new, name)
        encoding, cost = model.encode(self._subject.pictures[0], run)
        questions = self._subject.questions(self._size, self._size)
        requests = [Request(one, model.render(one, run), encoding, cost) for one in questions]
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                model.run(requests, run)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return {"synchronisations": float(sum("synchroniz" in str(one.message) for one in noted))}

    def _row(self, name: str, rounds: Rounds) -> Row:
        counted = max(rounds.values(name, "synchronisations"))
        return Row(
            section=self.name,
            subject=self._subject.name,
            variant=name,
            settings={
                "batch_size": self._size,
                "keep": self._keep,
                "max_new_tokens": self._new,
                "synchronisations": int(counted),
            },
            rounds=len(rounds.samples),
            seconds={},
        )
