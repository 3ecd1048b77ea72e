"""Tables and the picture of what `selects.py` measured: right answers against tokens prefilled for a question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from paired import ahead

from adafv.figures.formats import METADATA
from adafv.quality.changes import moments, parts

WORLDS = ("hard", "plain")
KEEPS = ("16", "32", "64", "128")
DENSE = "none question 10 all"
LINES = {
    "for each question": ("adafv question 1", "#d55e00", "o", "-"),
    "image, 4 questions": ("adafv image 4", "#0072b2", "s", "--"),
    "image, 10 questions": ("adafv image 10", "#0072b2", "s", "-"),
    "split, 4 questions": ("adafv split 4", "#009e73", "^", "--"),
    "split, 10 questions": ("adafv split 10", "#009e73", "^", "-"),
}
INK, PALE = "#222222", "#666666"


class Measured:
    """Everything about one world: a (3, questions) column for each setting, of right answers, tokens and FLOPs."""

    def __init__(self, folder: Path, world: str) -> None:
        found = [np.load(path) for path in sorted(folder.glob(f"{world}-*.npz"))]
        self.columns = {name: np.concatenate([one[name] for one in found], axis=-1) for name in found[0].files}
        self.images = np.unique(self.columns.pop("scenes"), return_inverse=True)[1]

    def share(self, name: str) -> tuple[float, float, float]:
        """Percent right, and the ends of its 95 % interval over images."""
        right, images = self._asked(name)
        wrong = parts([moments(images, 0 * right, 1 - right, np.ones(len(right)))])[0]
        if wrong is None:
            return (100.0, 100.0, 100.0)
        return (100 - 100 * wrong.share, 100 - 100 * wrong.upper(), 100 - 100 * wrong.lower())

    def tokens(self, name: str) -> float:
        """Prefilled for a question, on average."""
        return float(np.nanmean(self.columns[name][1]))

    def flops(self, name: str) -> float:
        """Prefilled for a question, on average."""
        return float(np.nanmean(self.columns[name][2]))

    def within(self, name: str, other: str) -> bool:
        """Whether a setting is there, and prefills for no more FLOPs than another."""
        return name in self.columns and self.flops(name) <= self.flops(other)

    def ahead(self, name: str, other: str) -> str:
        """How far one is ahead of another on the questions that both were asked, with its interval."""
        return ahead(self.images, self.columns[name][0], self.columns[other][0])

    def all_tokens(self, known: int) -> float:
        """Tokens prefilled for a question where nothing is dropped and `known` share it."""
        each, shared = self.tokens("adafv question 1 16"), self.tokens("adafv image 10 16")
        head = (each - shared) / 0.9  # text before the image, and 16 tokens of it
        return each - head + (head - 16 + 256) / known

    def _asked(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        there = ~np.isnan(self.columns[name][0])
        return self.columns[name][0][there], self.images[there]


def tables(folder: Path) -> str:
    """Make a table at the same K, and one at the same cost, of each world."""
    return "\n\n".join(_tables(Measured(folder, world), world) for world in WORLDS if any(folder.glob(f"{world}-*")))


def _tables(found: Measured, world: str) -> str:
    asked = f"{len(found.images)} questions about {found.images.max() + 1} images"
    lines = [f"{world}: {asked}; all tokens, prefilled for one question, take {found.all_tokens(1):.0f}", ""]
    lines += ["| chosen | keep | tokens | MFLOPs | right | to each question's, same keep | to all |", "|---" * 7 + "|"]
    for name in found.columns:
        pruner, select, known, keep = name.split()
        base = f"{pruner} question 1 {keep}"
        same = found.ahead(name, base) if base in found.columns and name != base else ""
        value, low, high = found.share(name)
        said = f"{pruner} {select}" + f", {known} questions" * (known != "1")
        cost = f"{found.tokens(name):.0f} | {found.flops(name) / 1e6:.0f}"
        right = f"{value:.1f} ({low:.1f} to {high:.1f})"
        lines.append(f"| {said} | {keep} | {cost} | {right} | {same} | {found.ahead(name, DENSE)} |")
    lines += ["", "At no more than AdaFV's FLOPs for each question:", "", "| keep | instead | keep | ahead by |"]
    return "\n".join([*lines, "|---" * 4 + "|", *_at_equal_cost(found)])


def _at_equal_cost(found: Measured) -> list[str]:
    """Compare each budget with the largest that costs no more where questions choose together."""
    lines = []
    for base in (f"adafv question 1 {keep}" for keep in KEEPS[:3]):
        for label, (line, *_) in list(LINES.items())[1:]:
            cheaper = [keep for keep in KEEPS if found.within(f"{line} {keep}", base)]
            if cheaper:
                ahead = found.ahead(f"{line} {cheaper[-1]}", base)
                lines.append(f"| {base.split()[-1]} | {label} | {cheaper[-1]} | {ahead} |")
        if found.flops(DENSE) <= found.flops(base):
            lines.append(f"| {base.split()[-1]} | all, 10 questions | 256 | {found.ahead(DENSE, base)} |")
    return lines


def plotted(folder: Path, path: Path) -> None:
    """Draw quality against prefill, a world beside the other."""
    worlds = [world for world in WORLDS if any(folder.glob(f"{world}-*"))]
    figure = Figure(figsize=(8.0, 4.3))
    FigureCanvasAgg(figure)
    for place, world in enumerate(worlds):
        axes = figure.add_axes((0.075 + 0.485 * place, 0.14, 0.43, 0.72))
        _panel(axes, Measured(folder, world), world, named=place == 0)
    title = "AdaFV on the demo: who chooses 16, 32, 64 or 128 of 256 tokens, and what it costs"
    figure.text(0.02, 0.95, title, fontweight="bold", va="center", color=INK)
    kind = path.suffix.removeprefix(".")
    figure.savefig(path, format=kind, dpi=200, metadata=METADATA[kind])


def _panel(axes: Axes, found: Measured, world: str, *, named: bool) -> None:
    for label, (line, color, mark, style) in LINES.items():
        names = [name for keep in KEEPS if (name := f"{line} {keep}") in found.columns]
        at, shares = [found.tokens(name) for name in names], [found.share(name) for name in names]
        ends = [[value - low for value, low, _ in shares], [high - value for value, _, high in shares]]
        axes.errorbar(
            at, [value for value, *_ in shares], ends, color=color, marker=mark, linestyle=style, label=label,
            markersize=5, markeredgecolor="white", markeredgewidth=0.6, linewidth=1.6, elinewidth=0.7,
        )  # fmt: skip
    value, dense = found.share(DENSE)[0], [(known, found.all_tokens(known)) for known in (1, 4, 10)]
    axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (5, 3)))
    axes.plot(
        [at for _, at in dense], [value] * 3, "d", color=INK, markersize=6, label="all tokens: 1, 4, 10 questions"
    )
    for known, at in dense:
        axes.annotate(str(known), (at, value), (0, 6), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axes.set_xscale("log")
    ticks = (10, 15, 20, 30, 50, 100, 200)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.tick_params(labelsize=8, length=3, color=PALE, labelcolor=INK)
    axes.grid(True, axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side, color in (("top", "none"), ("right", "none"), ("left", PALE), ("bottom", PALE)):
        axes.spines[side].set_color(color)
    axes.set_title(f"{world} world", fontsize=9, color=INK)
    axes.set_xlabel("tokens prefilled for a question", fontsize=9, color=INK)
    if named:
        axes.set_ylabel("accuracy, %", fontsize=9, color=INK)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
