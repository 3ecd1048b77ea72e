"""Measure what the second checkpoint has to pass: `python -m recipe.next.gates --model FOLDER --out gates.json`.

What is asked for stands in asked_for.py; the last lines say which of it was passed. Dense accuracy, agreement and what
re-encoding costs go through the library's engine and stock transformers; what is left without a view, without a
thing's patches or without the patches' order, through the recipe's own forward pass, whose logits a test holds to those
of stock transformers.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adafv
from adafv.engine import Model
from recipe.dataset import TOUCHED
from recipe.evaluation import share, shares_by
from recipe.export import exported_eyes
from recipe.next.asked_for import gates_of
from recipe.next.batches import Reorder, batch_of, show
from recipe.next.dataset import PICTURES, Store, draw_store, encode_store, open_store
from recipe.next.export import exported_tiled
from recipe.next.handling import USES
from recipe.next.heldout import SEEDS, Probe, probes
from recipe.next.language import TiledLanguage
from recipe.next.mosaic import NEWLINE
from recipe.next.scenes import compose_wide
from recipe.next.training import read
from recipe.next.views import coverage, draw
from recipe.parallel import run_parallel
from recipe.stock import Stock
from recipe.vision_losses import PATCHES
from recipe.worlds import REPORT, TUNE

log = logging.getLogger(__name__)

Rows = dict[str, list[float]]
"""Percent right, its standard error and the number of questions, by name."""


class Judge:
    """A checkpoint, held-out questions, and the visual tokens of their pictures as they are drawn."""

    def __init__(self, checkpoint: Path, asked: Sequence[Probe], seed: int, folder: Path, processes: int) -> None:
        self.asked, self.seed, self.folder = asked, seed, folder
        self.language: TiledLanguage = exported_tiled(checkpoint)
        eyes = exported_eyes(checkpoint)
        self.words = eyes.words.detach()
        count = 1 + max(probe.scene for probe in asked)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(eyes.state_dict(), folder / "eyes.pt")
        if not open_store(folder / PICTURES, count, "r+").size.all():
            run_parallel(draw_store, processes, folder, folder, count, seed, True)
        run_parallel(encode_store, processes, folder, folder, count, folder / "eyes.pt")
        self.store: Store = open_store(folder / PICTURES, count)

    @torch.no_grad()
    def right(self, asked: Sequence[Probe], change: Callable[[Probe], Reorder] | None = None) -> list[bool]:
        """Whether each question is answered rightly, from visual tokens that `change` takes away or moves."""
        results = []
        for probe in asked:
            shown = show(self.store, [probe.scene], change(probe) if change else None)
            batch = batch_of(shown, [[probe.question]])
            _, last, _ = read(self.language, self.words, batch)
            results.append(bool(last.argmax(-1) == batch.pack.answer))
        return results

    def by_kind(self, right: Sequence[bool], asked: Sequence[Probe]) -> Rows:
        """Shares by kind, with counting split by size."""
        rows = {name: _row(s) for name, s in shares_by(right, asked, "kind").items()}
        for size in ("small", "large"):
            for kind in ("count", "color"):
                chosen = [i for i, probe in enumerate(asked) if (probe.kind, probe.size) == (kind, size)]
                rows[f"{kind} of {size}"] = _row(share([right[i] for i in chosen], [asked[i].scene for i in chosen]))
        return rows


def _row(s: Any) -> list[float]:
    return [round(s.percent, 1), round(s.error, 1), s.count]


def _dense(judge: Judge) -> dict[str, Rows]:
    asked, right = judge.asked, judge.right(judge.asked)
    fields = {f: {n: _row(s) for n, s in shares_by(right, asked, f).items()} for f in ("size", "mosaic", "ratio")}
    return {"kind": judge.by_kind(right, asked)} | fields


def _without_thumbnail(_: Probe) -> Reorder:
    return lambda origin: origin[(origin == NEWLINE) | (origin >= PATCHES)]


def _without_tiles(_: Probe) -> Reorder:
    return lambda origin: origin[(origin >= 0) & (origin < PATCHES)]


def _shuffled(probe: Probe) -> Reorder:
    def moved(origin: np.ndarray) -> np.ndarray:
        patches, result = origin != NEWLINE, origin.copy()
        result[patches] = np.random.default_rng([probe.scene, 14]).permutation(origin[patches])
        return result

    return moved


def _without_thing(judge: Judge) -> Rows:
    asked = [probe for probe in judge.asked if probe.kind == "color"]

    def removed(probe: Probe) -> Reorder:
        gone = np.flatnonzero(coverage(compose_wide(judge.seed, probe.scene))[probe.question.asked] >= TOUCHED)
        return lambda origin: origin[~np.isin(origin, gone)]

    return judge.by_kind(judge.right(asked, removed), asked)


def _through_engine(model: Model, judge: Judge) -> Rows:
    """Dense accuracy after what happens to pictures."""
    result = {}
    for name, change in USES.items():
        shown = {number: change(draw(compose_wide(judge.seed, number))) for number in {p.scene for p in judge.asked}}
        questions = [adafv.Question(probe.number, shown[probe.scene], probe.text) for probe in judge.asked]
        answers = [answer.text for answer in model.batch(questions, batch_size=16, keep="all", pruner="none")]
        right = [text == probe.answer for text, probe in zip(answers, judge.asked, strict=True)]
        result[name] = _row(share(right, [probe.scene for probe in judge.asked]))
        log.info("%s: %s", name, result[name])
    return result


def _agrees(stock: Stock, model: Model, judge: Judge) -> dict[str, float]:
    """Stock `generate` and the engine give the same text."""
    asked = judge.asked[:: max(1, len(judge.asked) // 300)]
    shown = {probe.scene: draw(compose_wide(judge.seed, probe.scene)) for probe in asked}
    questions = [adafv.Question(probe.number, shown[probe.scene], probe.text) for probe in asked]
    ours = [answer.text for answer in model.batch(questions, keep="all", pruner="none", batch_size=16)]
    theirs = [stock.answer(shown[probe.scene], probe.text) for probe in asked]
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    return {"same": 100 * float(np.mean(same)), "questions": len(asked)}


def measure(
    checkpoint: Path, asked: Sequence[Probe], seed: int, folder: Path, processes: int = 2
) -> dict[str, Callable[[], Any]]:
    """The measurements, by name."""
    judge = Judge(checkpoint, asked, seed, folder, processes)
    places = [probe for probe in asked if probe.kind in ("side", "relation")]
    model = adafv.load(str(checkpoint), dtype="float32")
    return {
        "dense": lambda: _dense(judge),
        "without tiles": lambda: judge.by_kind(judge.right(asked, _without_tiles), asked),
        "without thumbnail": lambda: judge.by_kind(judge.right(asked, _without_thumbnail), asked),
        "shuffled": lambda: judge.by_kind(judge.right(places, _shuffled), places),
        "without the thing and its fringe": lambda: _without_thing(judge),
        "stock agrees": lambda: _agrees(Stock.load(checkpoint), model, judge),
        "uses": lambda: _through_engine(model, judge),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m recipe.next.gates", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; pictures go into a folder beside it")
    parser.add_argument("--split", choices=(REPORT, TUNE), default=REPORT, help="which scenes (default: report)")
    parser.add_argument("--per-kind", type=int, default=240, help="questions of each kind")
    options = parser.parse_args()
    if options.per_kind < 1:
        parser.error("--per-kind counts from 1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    seed = SEEDS[options.split]
    asked = probes(options.per_kind, seed)
    report: dict[str, Any] = {}
    folder = options.out.with_suffix(f".{options.split}")
    for name, measured in measure(options.model, asked, seed, folder).items():
        report[name] = measured()
        log.info("%s: %s", name, report[name])
        options.out.write_text(json.dumps(report, indent=1))
    for gate in gates_of(report):
        log.info("%s", gate)


if __name__ == "__main__":
    main()
