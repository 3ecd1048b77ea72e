"""What many answers took, stage by stage, and the least that a machine needs for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adafv.records import Answer
from adafv.spent import Flops, Latency

if TYPE_CHECKING:
    from adafv.bench.machine import Machine
    from adafv.bench.subject import Subject

STAGES = ("vision", "score", "prune", "prefill", "decode")


@dataclass(frozen=True)
class Stages:
    """Seconds and FLOPs of answers, all together.

    Args:
        count: of the answers.
        seconds: of each stage.
        flops: of each stage.
        batches, steps: prefills, and forwards behind them, each of which reads the language model's weights.
    """

    count: int
    seconds: dict[str, float]
    flops: dict[str, int]
    batches: float
    steps: float

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Stages:
        """Add up answers; each carries the times of its whole batch, so equal times are those of one batch."""
        batches: dict[tuple[float, ...], int] = {}
        for answer in answers:
            if answer.latency_s is not None and answer.tokens is not None:
                times = _times(answer.latency_s)
                batches[times] = max(batches.get(times, 0), answer.tokens.generated - 1)
        sums = [sum(times) for times in zip(*batches, strict=True)]
        spent = [_flops(answer.flops) for answer in answers if answer.flops is not None]
        total = {name: sum(one[name] for one in spent) for name in STAGES if name != "prune"}
        seconds = dict(zip(STAGES, sums, strict=False))
        return cls(len(answers), seconds, total, len(batches), sum(batches.values()))

    @classmethod
    def alone(cls, first: Answer, batch_size: int) -> Stages:
        """Take the work of one answer that shares nothing with another, decoded in batches of `batch_size`; no times.

        Args:
            first: the answer, which was charged for its image.
            batch_size: of those who make answers like it.
        """
        steps = 0 if first.tokens is None else (first.tokens.generated - 1) / batch_size
        return cls(1, {}, {} if first.flops is None else _flops(first.flops), 1 / batch_size, steps)

    def per_answer(self, whole: float) -> dict[str, float]:
        """Divide the stages' seconds by the answers, `rest` being what they leave of `whole` seconds."""
        taken = {name: value / self.count for name, value in self.seconds.items()}
        return taken | {"rest": whole / self.count - sum(taken.values())}

    def flops_per_answer(self) -> dict[str, int]:
        """Divide the FLOPs by the answers, with their `total`."""
        return {name: round(value / self.count) for name, value in (self.flops | {"total": self.total}).items()}

    @property
    def total(self) -> int:
        """FLOPs of all stages."""
        return sum(self.flops.values())

    def bounds(self, subject: Subject, machine: Machine) -> dict[str, float]:
        """Work out the least seconds of an answer, by stage and of the whole `question`.

        That is the FLOPs at the machine's matrix rate, or the reading of the language model's weights for every prefill
        and every step behind it, whichever is longer. How often the tower's are read is not told: they are left out.
        """
        moved = {"prefill": self.batches * subject.text_bytes, "decode": self.steps * subject.text_bytes}
        least = {name: machine.bound(value, moved.get(name, 0), subject.dtype) for name, value in self.flops.items()}
        return {name: value / self.count for name, value in (least | {"question": sum(least.values())}).items()}


def _times(latency: Latency) -> tuple[float, ...]:
    return tuple(getattr(latency, name) or 0.0 for name in STAGES)


def _flops(spent: Flops) -> dict[str, int]:
    """List FLOPs by the stage that spends them: the projector is part of `vision`, choosing is counted with `score`."""
    vision = spent.vision + spent.projector
    return {"vision": vision, "score": spent.score, "prefill": spent.prefill, "decode": spent.decode}
