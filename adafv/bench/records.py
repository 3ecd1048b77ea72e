"""What a bench finds: rows that a table, a figure and JSON are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from adafv.bench.rounds import Speedup, Spread

if TYPE_CHECKING:
    from adafv.bench.machine import Machine


STOCK, UNPRUNED = "transformers", "unpruned"
"""The two variants that everything is compared with."""
SECTIONS = ("latency", "pruners", "throughput", "vision", "synchronisations", "compiled")
"""Kinds of measurement, in the order that they are made in."""
ALONE = "unpruned, each prefilled"  # whole, also where questions about an image begin alike


@dataclass(frozen=True)
class Row:
    """One variant of one section.

    Args:
        section: one of `SECTIONS`.
        subject: name of the geometry or checkpoint.
        variant: name, unique in its section.
        settings: what distinguishes it: `keep`, `pruner`, `batch_size`, `questions_per_image`.
        rounds: that were measured.
        seconds: by stage.
        rate: questions (or crops) per second, where that is what is measured.
        flops: of what `seconds` covers, by stage.
        bound_s: seconds by stage that this machine needs at least: its matrix rate for the FLOPs, or its memory's for
            the weights, whichever takes longer.
        speedups: over the other variants that it is compared with, in the section's main figure.
        flops_ratio: FLOPs of the unpruned variant to these, in the same figure.
        attained: speed-up over the unpruned variant as a share of `flops_ratio`.
        peak_bytes: memory that was held at most, weights included, where that is known.
        notes: what else is to be known.
    """

    section: str
    subject: str
    variant: str
    settings: dict[str, Any]
    rounds: int
    seconds: dict[str, Spread]
    rate: Spread | None = None
    flops: dict[str, int] = field(default_factory=dict)
    bound_s: dict[str, float] = field(default_factory=dict)
    speedups: tuple[Speedup, ...] = ()
    flops_ratio: float | None = None
    attained: float | None = None
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unmeasured:
    """A section that did not run, and why."""

    section: str
    subject: str
    reason: str


@dataclass
class Bench:
    """Everything that was found, while it is found.

    Args:
        machine: that it ran on.
        settings: as they were chosen.
        rows: of all sections so far.
        unmeasured: sections that did not run.
        partial: whether it broke off.
    """

    machine: Machine
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    unmeasured: list[Unmeasured] = field(default_factory=list)
    partial: bool = True

    def to_json(self) -> dict[str, Any]:
        """Turn into plain JSON objects."""
        return asdict(self)

    def best(self) -> tuple[Row, Speedup] | None:
        """Find the largest speed-up over the unpruned variant that the rounds tell apart from none.

        It is in TTFT, or in questions per second where no TTFT was compared.
        """
        compared = [row for row in self.rows if row.attained is not None]
        latency = [row for row in compared if row.section == "latency"]
        found = [
            (row, gain)
            for row in latency or compared
            for gain in row.speedups
            if gain.over.startswith(UNPRUNED) and gain.told_apart
        ]
        return max(found, key=lambda pair: pair[1].median, default=None)
