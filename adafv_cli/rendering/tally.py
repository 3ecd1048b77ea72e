"""What a batch adds up to, while it runs and at its end."""

from __future__ import annotations

import math
import re
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adafv.records import Answer, QuestionId

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/\\]\S*|\S+\.\w{2,5}\b|\d+")  # names, paths and numbers in a message


@dataclass(frozen=True)
class Failed:
    """A line that was not answered."""

    question_id: QuestionId
    type: str
    message: str
    fix: str

    @property
    def reason(self) -> str:
        """What is the same for all lines that failed in the same way."""
        return f"{self.type}: {_VARIABLE.sub('…', self.message)}"


@dataclass
class Tally:
    """Sums and distributions of answers, in a few bytes for each.

    `clock` gives seconds; the time counts from when the tally is made.
    """

    clock: Callable[[], float] = time.monotonic
    failed: list[Failed] = field(default_factory=list)
    visual: int = 0
    kept: int = 0
    text: int = 0
    generated: int = 0
    cut: int = 0
    flops: int = 0
    unpruned_flops: int = 0
    total_s: array[float] = field(default_factory=lambda: array("d"))
    ttft_s: array[float] = field(default_factory=lambda: array("d"))
    kept_each: array[int] = field(default_factory=lambda: array("l"))
    generated_each: array[int] = field(default_factory=lambda: array("l"))
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def answered(self) -> int:
        """Answers without an error."""
        return len(self.total_s)

    @property
    def lines(self) -> int:
        """All lines of output."""
        return self.answered + len(self.failed)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self.clock() - self.started

    @property
    def per_second(self) -> float:
        """Lines a second."""
        return self.lines / max(self.seconds, 1e-9)

    @property
    def saved(self) -> float:
        """Share of the visual tokens that was left out."""
        return 1 - self.kept / self.visual if self.visual else 0.0

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        if answer.error is not None:
            error = answer.error
            self.failed.append(Failed(answer.question_id, error.type, error.message, error.fix))
            return
        latency, tokens, flops = answer.latency_s, answer.tokens, answer.flops
        self.total_s.append(latency.total if latency else 0.0)
        if latency is None or latency.ttft is not None:
            self.ttft_s.append(latency.ttft if latency and latency.ttft else 0.0)
        self.cut += answer.finish_reason == "length"
        if tokens is not None:
            self.visual += tokens.visual
            self.kept += tokens.kept
            self.text += tokens.text
            self.generated += tokens.generated
            self.kept_each.append(tokens.kept)
            self.generated_each.append(tokens.generated)
        if flops is not None:
            self.flops += flops.total
            self.unpruned_flops += flops.unpruned_total

    def reasons(self) -> dict[str, list[Failed]]:
        """Failed lines, grouped by what went wrong, the most frequent first."""
        groups: dict[str, list[Failed]] = {}
        for failed in self.failed:
            groups.setdefault(failed.reason, []).append(failed)
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))

    def totals(self) -> dict[str, Any]:
        """Sums, for a report."""
        return {
            "lines": self.lines,
            "answered": self.answered,
            "failed": len(self.failed),
            "cut_off": self.cut,
            "seconds": round(self.seconds, 3),
            "questions_per_s": round(self.per_second, 4),
            "tokens": {"visual": self.visual, "kept": self.kept, "text": self.text, "generated": self.generated},
            "flops": {"total": self.flops, "unpruned_total": self.unpruned_flops},
        }

    def distributions(self) -> dict[str, Any]:
        """Work out mean, least, greatest and quantiles of each quantity over the answers."""
        return {
            "latency_total_s": distribution(self.total_s),
            "latency_ttft_s": distribution(self.ttft_s),
            "kept_tokens": distribution(self.kept_each),
            "generated_tokens": distribution(self.generated_each),
        }


def distribution(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, least, greatest and quantiles; `None` of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    found = {"mean": sum(ordered) / len(ordered), "min": ordered[0], "max": ordered[-1]}
    return found | {f"p{round(100 * share):02d}": quantile(ordered, share) for share in QUANTILES}


def quantile(ordered: Sequence[float], share: float) -> float:
    """Find the value that at least `share` of the ordered values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
