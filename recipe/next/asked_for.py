"""What is asked for of the second checkpoint: written down before anything was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipe.questions import HARD_KINDS

Report = dict[str, Any]
ENCODED = ("JPEG quality 60", "WebP quality 60", "twice the size and back")


@dataclass(frozen=True)
class Gate:
    """A measured number and its bound, all in percent or points."""

    name: str
    value: float
    bound: float
    is_floor: bool  # at least the bound; else at most

    @property
    def passed(self) -> bool:
        """Whether the number keeps to its bound; one that is not a number does not."""
        return self.value >= self.bound if self.is_floor else self.value <= self.bound

    def __str__(self) -> str:
        asked = f"at {'least' if self.is_floor else 'most'} {self.bound:g}"
        return f"{'passed' if self.passed else 'MISSED'}  {self.name}: {self.value:.1f}, {asked}"


def gates_of(report: Report) -> list[Gate]:
    """All gates by what `recipe.next.gates` measured, percentages first in each row."""
    dense: dict[str, Any] = report["dense"]
    kinds, uses = dense["kind"], report["uses"]
    without_tiles, no_thumbnail, shuffled = (report[n] for n in ("without tiles", "without thumbnail", "shuffled"))
    worst = {field: min(row[0] for row in dense[field].values()) for field in ("mosaic", "ratio")}
    gates = [
        Gate("dense, all", kinds["all"][0], 90, True),
        *(Gate(f"dense, {kind}", kinds[kind][0], 80, True) for kind in HARD_KINDS),
        *(Gate(f"dense, lowest {field}", value, 85, True) for field, value in worst.items()),
        Gate("number without tiles", without_tiles["number"][0], 25, False),
        Gate("color of small without tiles", without_tiles["color of small"][0], 35, False),
        Gate("color without the thing", report["without the thing and its fringe"]["color"][0], 25, False),
        Gate("stock agrees", report["stock agrees"]["same"], 99, True),
    ]
    for kind, points in (("biggest", 30), ("count of large", 20)):
        gates.append(Gate(f"{kind}, lost without thumbnail", _lost(kinds, no_thumbnail, kind), points, True))
    for kind in ("side", "relation"):
        gates.append(Gate(f"{kind}, lost by shuffling", _lost(kinds, shuffled, kind), 30, True))
    return gates + [Gate(f"lost by {use}", uses["as drawn"][0] - uses[use][0], 3, False) for use in ENCODED]


def _lost(before: dict[str, Any], after: dict[str, Any], kind: str) -> float:
    return float(before[kind][0] - after[kind][0])
