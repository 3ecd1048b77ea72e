"""What pruning by text is worth where words point at patches less well: `python benchmarks/alignment.py --plot X.png`.

The demo's words point at its visual tokens far better than a real LLaVA's. So noise is added to every cosine of a
word and a visual token, more and more of it, and the held-out questions are asked again. Above the noise stands the
signal that `adafv info --probe IMAGE` prints of any checkpoint: the spread of the best word's cosine beyond what chance
has, in multiples of chance, to which the noise is added. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from fusion_study import Study
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from adafv.figures.formats import METADATA
from adafv.figures.placing import spread
from adafv.quality.changes import moments, parts
from adafv.signals import gathering
from recipe.evaluation import pictures, probes
from recipe.worlds import HARD, PLAIN, held_out

NOISES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
LOOKS = {"adafv": ("#d55e00", "o"), "similarity": ("#009e73", "^"), "saliency": ("#0072b2", "s")}
PROBED = 60  # pictures that the signal is measured on


def right_with_noise(study: Study, pruner: str, keep: int, noise: float) -> np.ndarray:
    """(questions,) 1 where the answer is right when the pruner sees noisy cosines; the same noise for every pruner."""
    generator, clean = torch.Generator().manual_seed(0), gathering.cosines

    def noisy(text: Tensor, visual: Tensor) -> Tensor:
        found = clean(text, visual)
        return found + noise * torch.randn(found.shape, generator=generator)

    with mock.patch.object(gathering, "cosines", noisy):
        return study.right(pruner, keep)


def enclosed(study: Study, right: dict[tuple[str, float], np.ndarray]) -> dict[tuple[str, float], tuple[float, ...]]:
    """Percent right with the ends of its 95 % interval over images."""
    scenes = {scene: number for number, scene in enumerate(dict.fromkeys(probe.scene for probe in study.asked))}
    images = np.array([scenes[probe.scene] for probe in study.asked])
    ones = np.ones(len(images))
    sums = [moments(images, 0 * ones, 1 - marks, ones) for marks in right.values()]
    return {
        name: (100 - 100 * wrong.share, 100 - 100 * wrong.upper(), 100 - 100 * wrong.lower())
        for name, wrong in zip(right, parts(sums), strict=True)
        if wrong is not None
    }


def signals(study: Study) -> tuple[float, ...]:
    """Signal of the demo with each noise, in multiples of chance and noise together."""
    shown = list(pictures(study.asked).values())[:PROBED]
    found = [study.model.probe(picture).alignment for picture in shown]
    strength, chance = np.mean([one.signal * one.chance for one in found]), found[0].chance
    return tuple(float(strength) / math.hypot(chance, noise) for noise in NOISES)


def drawn(found: dict[tuple[str, float], tuple[float, ...]], above: tuple[float, ...], keep: int, world: str) -> Figure:
    """The curve."""
    figure = Figure(figsize=(7.0, 4.6))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.095, 0.12, 0.75, 0.68))
    places = np.arange(len(NOISES))
    for number, (pruner, (color, mark)) in enumerate(LOOKS.items()):
        values, low, high = (np.array([found[pruner, noise][part] for noise in NOISES]) for part in range(3))
        at = places + 0.06 * (number - 1)
        axes.errorbar(
            at, values, [values - low, high - values], color=color, marker=mark, linewidth=1.7, elinewidth=0.8
        )
    low, high = axes.get_ylim()
    ends = spread([found[pruner, NOISES[-1]][0] for pruner in LOOKS], (high - low) / 18, low, high)
    for (pruner, (color, _)), height in zip(LOOKS.items(), ends, strict=True):
        axes.text(places[-1] + 0.25, height, pruner, color=color, va="center")
    axes.set_xticks(places, [f"{noise:g}" for noise in NOISES])
    axes.set_xlabel("noise added to every cosine of a word and a visual token (standard deviation)")
    axes.set_ylabel("accuracy, %")
    axes.grid(True, axis="y", color="#e4e4e4")
    top = axes.secondary_xaxis("top")
    top.set_xticks(places, [f"{signal:.1f}" for signal in above])
    top.set_xlabel("signal of words, in multiples of chance (adafv info --probe)", color="#666666")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    top.spines["top"].set_visible(False)
    figure.text(0.02, 0.95, f"demo, {world} world, {keep} of 256 visual tokens", fontweight="bold", va="center")
    return figure


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=(PLAIN, HARD), default=HARD)
    parser.add_argument("--split", choices=("tune", "report"), default="report")
    parser.add_argument("--per-kind", type=int, default=120)
    parser.add_argument("--keep", type=int, default=32)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--plot", type=Path, help="a .png, .svg or .pdf")
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(probes(options.per_kind, held_out(options.set, options.split)), options.model)
    right = {
        (pruner, noise): right_with_noise(study, pruner, options.keep, noise)
        for pruner in LOOKS
        for noise in (NOISES if pruner != "saliency" else NOISES[:1])  # which reads no cosines
    }
    right |= {("saliency", noise): right["saliency", NOISES[0]] for noise in NOISES}
    found, above = enclosed(study, right), signals(study)
    print(f"{len(study.asked)} questions, {options.keep} of 256 visual tokens\n")
    print("| noise | signal | " + " | ".join(LOOKS) + " |\n" + "|---" * (2 + len(LOOKS)) + "|")
    for noise, signal in zip(NOISES, above, strict=True):
        cells = [f"{value:.1f} ({low:.1f} to {high:.1f})" for value, low, high in (found[p, noise] for p in LOOKS)]
        print(f"| {noise:g} | {signal:.1f} | " + " | ".join(cells) + " |")
    if options.plot is not None:
        kind = options.plot.suffix.removeprefix(".")
        figure = drawn(found, above, options.keep, options.set)
        figure.savefig(options.plot, format=kind, dpi=160, metadata=METADATA[kind])


if __name__ == "__main__":
    main()
