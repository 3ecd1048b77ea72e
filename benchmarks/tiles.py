"""Quality against all FLOPs, vision included, with fewer tiles: what the thumbnail can tell, beside tiles by chance.

    python benchmarks/tiles.py QUESTIONS.jsonl -m MODEL --keep 12.5% --plot tiles.png --json tiles.json

For each of `all`, `auto` and the numbers of --tiles a table's row: tiles looked at, FLOPs of all stages as a share of
the unpruned model's, answers that are right, and the difference to `all` in points, with its paired 95 % interval over
images. `chance` takes as many tiles of each image and question, drawn by a seed: what a rule has to beat. There is one
sweep for the rule and one for chance, so that every setting is charged what it would cost alone. Lines need an
`answer`, which is compared as a whole, normalised.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import adafv
from adafv import Answer, Question, RunSettings, tiling
from adafv.quality.intervals import Resampling, interval
from adafv.quality.metrics import accepted, mark
from adafv.settings import BatchSettings
from adafv.tiles import Ranked, rank


def questions(path: Path) -> list[Question]:
    """Read the lines that have an answer; images are relative to the file."""
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines()):
        line = json.loads(text)
        rest = {name: value for name, value in line.items() if name not in ("image", "text", "question_id")}
        if accepted(rest) is not None:
            image = str(path.parent / line["image"])
            found.append(Question(line.get("question_id", number), image, line["text"], rest))
    return found


@contextmanager
def by_chance(seed: int) -> Iterator[None]:
    """Draw the order of tiles while it lasts; how many `auto` takes stays as it is."""
    draw = random.Random(seed)

    def drawn(saliency: Sequence[float], relevance: Sequence[float], numbers: Sequence[int]) -> Ranked:
        order = list(numbers)
        draw.shuffle(order)
        return Ranked(tuple(order), rank(saliency, relevance, numbers).enough)

    tiling.rank = drawn
    try:
        yield
    finally:
        tiling.rank = rank


def right(answer: Answer) -> float:
    """Mark an answer, from 0 to 1."""
    wanted = accepted(answer.metadata)
    if wanted is None or answer.text is None:
        return 0.0
    return mark(answer.text, wanted).exact


def row(name: str, answers: Sequence[Answer], whole: Sequence[Answer]) -> dict[str, Any]:
    """Sum up a setting beside all tiles."""
    known: dict[str | None, int] = {}
    images = [known.setdefault(answer.image.key if answer.image else None, len(known)) for answer in answers]
    points = np.array([[100 * (right(one) - right(other)), 1.0] for one, other in zip(answers, whole, strict=True)])
    sums = Resampling(images).sums(points)
    lost = interval(sums[:, 0] / sums[:, 1])
    spent = [answer.flops for answer in answers if answer.flops is not None]
    tiles = [answer.tokens.tiles or 0 for answer in answers if answer.tokens is not None]
    return {
        "tiles": name,
        "looked_at": sum(tiles) / max(1, len(tiles)),
        "flops": sum(one.total for one in spent) / sum(one.unpruned_total for one in spent),
        "vision_flops": sum(one.vision + one.projector for one in spent),
        "right": 100 * sum(map(right, answers)) / len(answers),
        "against_all": None if lost is None else [lost.value, lost.low, lost.high],
        "failed": sum(answer.error is not None for answer in answers),
    }


def measured(model: adafv.Model, asked: list[Question], run: RunSettings, tiles: list[str], seed: int) -> list[Any]:
    """Answer everything under every setting: rows of the rule, then of chance."""
    named = ["all", *tiles]
    runs = [replace(run, tiles=one) for one in named]
    batch = BatchSettings(batch_size=16)
    swept = list(zip(*model.sweep(asked, runs, batch), strict=True))
    with by_chance(seed):
        drawn = list(zip(*model.sweep(asked, runs[1:], batch), strict=True))
    whole = swept[0]
    rows = [row(name, answers, whole) for name, answers in zip(named, swept, strict=True)]
    return rows + [row(f"{name}, chance", answers, whole) for name, answers in zip(tiles, drawn, strict=True)]


def plot(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw quality against the share of all FLOPs."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for label, colour, chance in (("the thumbnail's choice", "#0072b2", False), ("chance", "#d55e00", True)):
        some = sorted((one for one in rows if one["tiles"].endswith("chance") == chance), key=lambda one: one["flops"])
        axes.plot([100 * one["flops"] for one in some], [one["right"] for one in some], "o-", color=colour, label=label)
        for one in some:
            name = one["tiles"].removesuffix(", chance")
            below = (4, -12) if chance else (4, 5)
            axes.annotate(name, (100 * one["flops"], one["right"]), xytext=below, textcoords="offset points", size=8)
    axes.set(xlabel="FLOPs of all stages, % of unpruned", ylabel="right, %", title=title)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path, help="JSONL with answers")
    parser.add_argument("-m", "--model", default="demo")
    parser.add_argument("--keep", default="12.5%")
    parser.add_argument("--pruner", default="adafv")
    parser.add_argument("--positions", default="compact")
    parser.add_argument("--tiles", default="auto,1,2,3")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--limit", type=int, help="questions at most")
    parser.add_argument("--seed", type=int, default=0, help="of chance")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    asked = questions(given.questions)[: given.limit]
    run = RunSettings(
        keep=given.keep, pruner=given.pruner, positions=given.positions, max_new_tokens=given.max_new_tokens
    )
    rows = measured(adafv.load(given.model), asked, run, given.tiles.split(","), given.seed)
    print(f"{len(asked)} questions, {given.pruner} at {given.keep}\n")
    print("| tiles | looked at | FLOPs, % of unpruned | vision GFLOPs | right, % | against all tiles |")
    print("|---|---|---|---|---|---|")
    for one in rows:
        lost = one["against_all"]
        said = "" if lost is None else f"{lost[0]:+.1f}, {lost[1]:+.1f} to {lost[2]:+.1f}"
        print(
            f"| {one['tiles']} | {one['looked_at']:.2f} | {100 * one['flops']:.1f} | {one['vision_flops'] / 1e9:.1f} "
            f"| {one['right']:.1f} | {said} |"
        )
    if given.plot:
        plot(rows, given.plot, f"{given.pruner} at {given.keep}, {len(asked)} questions")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
