"""What choosing costs: every pruner over one batch of questions, next to the prefill."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from adafv import flops, pruners
from adafv.bench.machine import Machine
from adafv.bench.records import Row
from adafv.bench.rounds import Rounds, Sample, Spread, Variant
from adafv.bench.subject import Subject
from adafv.request import Request
from adafv.timing import Stopwatch

STAGES = ("score", "prune")
_PREFILLS = ("prefill, unpruned", "prefill, pruned")  # of one question, beside which choosing is put


class Selection:
    """The section `pruners`: seconds of scoring and choosing for a batch, and their share of the prefill that it saves.

    Args:
        subject: whose visual tokens they choose among.
        keep: budget in visual tokens.
        names: of the pruners.
        batch_size: questions at once, each about a picture of its own as far as there are any.
    """

    name = "pruners"

    def __init__(self, subject: Subject, keep: int, names: Sequence[str], batch_size: int) -> None:
        self._subject, self._keep, self._size = subject, keep, batch_size
        self._names = [name for name in names if name != "none"]
        self._requests: list[Request] = []

    def rounds(self) -> Rounds:
        """List the variants."""
        choosing = [Variant(name, partial(self._choose, name)) for name in self._names]
        keeps: tuple[int | str, ...] = ("all", self._keep)
        prefills = zip(_PREFILLS, keeps, strict=True)
        return Rounds([*choosing, *(Variant(name, partial(self._prefill, keep)) for name, keep in prefills)])

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was measured."""
        return [self._row(name, rounds) for name in self._names] if rounds.samples else []

    @torch.inference_mode()
    def _choose(self, name: str) -> Sample:
        pipeline, watch = self._subject.model.pipeline, Stopwatch(self._subject.devices)
        run = self._subject.run_settings(self._keep, 1, name)
        pipeline.prune(self._asked(), pipeline.embed(self._asked()), run, watch)
        return {stage: watch[stage] for stage in STAGES} | {"selection": watch["score"] + watch["prune"]}

    def _prefill(self, keep: int | str) -> Sample:
        """Answer one question by one token; the batch would take as many times as long as it has questions."""
        run = self._subject.run_settings(keep, 1, "saliency")
        latency = self._subject.model.run(self._asked()[:1], run)[0].latency_s
        return {} if latency is None or latency.prefill is None else {"prefill": latency.prefill}

    def _asked(self) -> list[Request]:
        """Encode the pictures when they are first needed: the section may never run."""
        model, run = self._subject.model, self._subject.run_settings(self._keep, 1)
        if not self._requests:
            pipeline, runs = model.pipeline, [self._subject.run_settings(self._keep, 1, name) for name in self._names]
            pixels = [pipeline.preprocess(picture) for picture in self._subject.pictures[: self._size]]
            encodings = [pipeline.encode([one], Stopwatch(self._subject.devices), runs)[0] for one in pixels]
            self._requests = [
                Request(question, model.render(question, run), encodings[number % len(encodings)])
                for number, question in enumerate(self._subject.questions(self._size, 1))
            ]
        return self._requests

    def _row(self, name: str, rounds: Rounds) -> Row:
        visual, after = self._requests[0].image.visual, len(self._requests[0].prompt.after)
        first, end = self._requests[0].prompt.question_span
        cost = self._subject.accountant.selection(
            self._subject.run_settings(self._keep, 1, name),
            keep=min(self._keep, visual),
            visual=visual,
            text=after,
            question=end - first,
        )
        stages = {stage: rounds.spread(name, stage) for stage in (*STAGES, "selection")}
        reads = sorted(pruners.get(name).reads)
        return Row(
            section=self.name,
            subject=self._subject.name,
            variant=name,
            settings={"batch_size": self._size, "keep": self._keep, "visual": visual, "reads": reads},
            rounds=len(rounds.samples),
            seconds={stage: spread for stage, spread in stages.items() if spread is not None},
            flops={"selection": self._size * cost},
            notes=self._shares(stages["selection"], cost, rounds),
        )

    def _shares(self, taken: Spread | None, cost: int, rounds: Rounds) -> tuple[str, ...]:
        """Say what share choosing is of the prefill that it saves, where it saves any."""
        whole, pruned = (rounds.spread(name, "prefill") for name in _PREFILLS)
        if taken is None or whole is None or pruned is None or whole.median <= pruned.median:
            return ()
        request, text = self._requests[0], self._subject.accountant.text
        before, after = (
            flops.prefill(text, visual + request.prompt.text_tokens)
            for visual in (len(request.image.packed), self._keep)
        )
        time = 100 * taken.median / (self._size * (whole.median - pruned.median))
        work = f", {100 * cost / (before - after):.2g} % by FLOPs" if before > after else ""
        return (f"{time:.2g} % of the prefill time that it saves{work}",)
