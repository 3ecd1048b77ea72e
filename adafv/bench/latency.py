"""One question at a time: TTFT by stage and TPOT, unpruned, pruned, and by stock transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from adafv import flops
from adafv.bench.machine import Machine
from adafv.bench.peak import Peak
from adafv.bench.records import STOCK, UNPRUNED, Row
from adafv.bench.rounds import Rounds, Sample, Variant
from adafv.bench.stock import Stock
from adafv.bench.subject import Subject
from adafv.records import Answer
from adafv.request import Request

_STAGES = ("vision", "score", "prune", "prefill", "ttft", "decode", "tpot", "total")
_TTFT = ("vision", "projector", "score", "prefill")


class Latency:
    """The section `latency`.

    Args:
        subject: what is asked.
        keeps: budgets in visual tokens.
        pruner: that keeps them.
        new_tokens: that each answer has, unless the model ends it.
    """

    name = "latency"

    def __init__(self, subject: Subject, keeps: Sequence[int], pruner: str, new_tokens: int) -> None:
        self._subject, self._new = subject, new_tokens
        self._keeps: dict[str, int | str] = {UNPRUNED: "all"} | {f"{pruner} {keep}": keep for keep in keeps}
        self._pruner = pruner
        self._answers: dict[str, Answer] = {}
        self._peaks: dict[str, int | None] = {}
        (self._question,) = subject.questions(1, 1)

    def rounds(self) -> Rounds:
        """List the variants."""
        ours = [Variant(name, partial(self._ask, name)) for name in self._keeps]
        return Rounds([Variant(STOCK, self._stock), *ours])

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was measured."""
        return [self._row(variant.name, rounds, machine) for variant in rounds.variants] if rounds.samples else []

    def _stock(self) -> Sample:
        stock, peak = Stock(self._subject), Peak(self._subject.devices)
        inputs = stock.inputs([self._question])
        with peak.watched():
            taken = stock.answer(inputs, self._new)
        self._peaks[STOCK] = peak.bytes
        return taken

    def _ask(self, name: str) -> Sample:
        subject, peak = self._subject, Peak(self._subject.devices)
        run = subject.run_settings(self._keeps[name], self._new, self._pruner)
        with peak.watched():
            encoding, cost = subject.model.encode(self._question.image, run)
            request = Request(self._question, subject.model.render(self._question, run), encoding, cost)
            (answer,) = subject.model.run([request], run)
        self._answers[name], self._peaks[name] = answer, peak.bytes
        latency: Any = answer.latency_s
        taken = {stage: getattr(latency, stage) for stage in _STAGES}
        taken["total"] -= latency.preprocess  # which stock's figures leave out, too
        return {stage: value for stage, value in taken.items() if value is not None}

    def _row(self, name: str, rounds: Rounds, machine: Machine) -> Row:
        answer = self._answers.get(name) or self._answers[UNPRUNED]  # stock's work is that of our unpruned variant
        spent = self._flops(answer)
        over = [other for other in (STOCK, UNPRUNED) if STOCK != name != other]
        found = [rounds.speedup(name, other, "ttft") for other in over]
        ratio = self._flops(self._answers[UNPRUNED])["ttft"] / spent["ttft"]
        gain = rounds.speedup(name, UNPRUNED, "ttft") if name not in (STOCK, UNPRUNED) else None
        stages = {stage: rounds.spread(name, stage) for stage in _STAGES}
        return Row(
            section=self.name,
            subject=self._subject.name,
            variant=name,
            settings={"batch_size": 1, "keep": self._keeps.get(name, "all"), **self._chosen(name)},
            rounds=len(rounds.samples),
            seconds={stage: spread for stage, spread in stages.items() if spread is not None},
            flops=spent,
            bound_s=self._bounds(answer, machine),
            speedups=tuple(one for one in found if one is not None),
            flops_ratio=None if gain is None else ratio,
            attained=None if gain is None else gain.median / ratio,
            peak_bytes=self._peaks.get(name),
        )

    def _chosen(self, name: str) -> dict[str, str]:
        return {} if name in (STOCK, UNPRUNED) else {"pruner": self._pruner}

    def _flops(self, answer: Answer) -> dict[str, int]:
        spent: Any = answer.flops
        return {"ttft": sum(getattr(spent, stage) for stage in _TTFT), "decode": spent.decode, "total": spent.total}

    def _bounds(self, answer: Answer, machine: Machine) -> dict[str, float]:
        """Work out the least seconds: vision and prefill read their weights once, every later token the second ones."""
        subject, spent, tokens = self._subject, self._flops(answer), answer.tokens
        if tokens is None:
            return {}
        dtype, text = subject.dtype, subject.text_bytes
        cache = flops.kv_cache_bytes(subject.accountant.text, tokens.fed, subject.stock.dtype.itemsize)
        steps = tokens.generated - 1
        bounds = {"ttft": machine.bound(spent["ttft"], subject.vision_bytes + text, dtype)}
        return bounds | ({"tpot": machine.bound(spent["decode"] / steps, text + cache, dtype)} if steps > 0 else {})
