"""Should the questions about an image choose together? `python benchmarks/selects.py --set hard --out FOLDER`.

Draws ten questions about each held-out scene, tells the model of 1, 4 or 10 of them at once, and asks under every
`--select`: right answers, and what was prefilled for a question, a shared prefix counted once. Goes on where it was
left, chunk by chunk, so that more `--scenes` can be added. `--table FOLDER` prints Markdown tables of all that is
there, with paired differences over images, and `--plot FILE` draws quality against prefill.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from selects_report import plotted, tables

import adafv
from adafv.records import Question
from adafv.request import Request
from adafv.settings import RunSettings, Select
from adafv.timing import Stopwatch
from recipe.dataset import labels
from recipe.drawing import SIDE, render
from recipe.facts import facts_of
from recipe.makers import SceneQuestion
from recipe.questions import ask
from recipe.worlds import HARD, PLAIN, Series, held_out

log = logging.getLogger(__name__)

QUESTIONS = 10  # about each scene
CHUNK = 10  # scenes
BATCH = 60


@dataclass(frozen=True)
class Setting:
    """One way to ask: `known` questions choose together, and are prefilled together."""

    pruner: str
    select: Select
    known: int
    keep: str

    @property
    def name(self) -> str:
        """Of the column."""
        return f"{self.pruner} {self.select} {self.known} {self.keep}"


def settings() -> Iterator[Setting]:
    """List all that are compared."""
    yield Setting("none", "question", QUESTIONS, "all")
    for keep in ("16", "32", "64"):
        yield Setting("adafv", "question", 1, keep)
        for known in (4, QUESTIONS):
            yield Setting("adafv", "image", known, keep)
            yield Setting("adafv", "split", known, keep)
    yield Setting("adafv", "image", QUESTIONS, "128")
    for keep in ("16", "64"):
        yield Setting("mmtok", "question", 1, keep)
        yield Setting("mmtok", "image", QUESTIONS, keep)
        yield Setting("divprune", "question", QUESTIONS, keep)


def drawn(series: Series, number: int) -> list[SceneQuestion]:
    """Draw questions about a scene, kind after kind, no text twice; none where it has too few."""
    facts, rng = facts_of(labels(series.scene(number))[2]), np.random.default_rng([series.seed, number, 4])
    found: dict[str, SceneQuestion] = {}
    for turn in range(8 * QUESTIONS):
        question = ask(rng, facts, series.kinds[turn % len(series.kinds)])
        if question is not None and len(found) < QUESTIONS:
            found.setdefault(question.text, question)
    return list(found.values()) if len(found) == QUESTIONS else []


class Study:
    """Scenes that are encoded once, and their questions."""

    def __init__(self, model: adafv.Model, series: Series, scenes: Sequence[int]) -> None:
        pipeline, self._model = model.pipeline, model
        asked = {scene: drawn(series, scene) for scene in scenes}
        self._asked = {scene: found for scene, found in asked.items() if found}
        self._encoded = {
            scene: pipeline.encode([pipeline.preprocess(render(series.scene(scene), SIDE))], Stopwatch(()))[0]
            for scene in self._asked
        }
        self.scenes = np.repeat(list(self._asked), QUESTIONS)

    def answered(self, setting: Setting) -> np.ndarray:
        """(3, questions): 1 where the answer is true, tokens and FLOPs that were prefilled; NaN where not asked."""
        found, scenes = np.full((3, len(self._asked), QUESTIONS), np.nan), list(self._asked)
        run = RunSettings(keep=setting.keep, pruner=setting.pruner, select=setting.select, max_new_tokens=3)
        many = BATCH // setting.known  # groups in a batch: about different scenes, so that no more is shared
        for first in range(0, QUESTIONS - setting.known + 1, setting.known):
            for start in range(0, len(scenes), many):
                some = scenes[start : start + many]
                requests = [one for scene in some for one in self._group(scene, first, setting, run)]
                for number, (answer, outcome) in enumerate(self._model.outcomes(requests, run)):
                    place, turn = start + number // setting.known, first + number % setting.known
                    right = answer.text == self._asked[scenes[place]][turn].answer
                    fed = answer.tokens.fed - outcome.decoded.shared
                    found[:, place, turn] = right, fed, answer.flops.prefill
        return found.reshape(3, -1)

    def _group(self, scene: int, first: int, setting: Setting, run: RunSettings) -> list[Request]:
        texts = tuple(one.text for one in self._asked[scene][first : first + setting.known])
        asked = [Question(first + number, None, text, known=texts) for number, text in enumerate(texts)]
        return [Request(one, self._model.render(one, run), self._encoded[scene]) for one in asked]


def measure(folder: Path, world: str, split: str, scenes: range) -> None:
    """Answer all questions about scenes that were not asked yet, a file for each chunk of them."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    model = adafv.load("demo", dtype="float32", device_map="cpu")
    for start in scenes[::CHUNK]:
        path = folder / f"{world}-{start:05d}.npz"
        if path.exists():
            continue
        study = Study(model, held_out(world, split), range(start, min(start + CHUNK, scenes.stop)))
        columns = {setting.name: study.answered(setting) for setting in settings()}
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            np.savez(file, scenes=study.scenes, **columns)
        temporary.replace(path)
        log.info("%s: scenes up to %d", world, start + CHUNK)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=(PLAIN, HARD), default=HARD)
    parser.add_argument("--split", choices=("tune", "report"), default="report")
    parser.add_argument("--first", type=int, default=0, help="scene to begin with")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--out", type=Path, help="folder for what is measured")
    parser.add_argument("--table", type=Path, help="folder of what was measured")
    parser.add_argument("--plot", type=Path, help="with --table: a .png, .svg or .pdf")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    log.setLevel(logging.INFO)
    if options.out is not None:
        measure(options.out, options.set, options.split, range(options.first, options.first + options.scenes))
    if options.table is not None:
        print(tables(options.table))
        if options.plot is not None:
            plotted(options.table, options.plot)


if __name__ == "__main__":
    main()
