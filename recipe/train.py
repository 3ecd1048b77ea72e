"""Make the demo checkpoint from nothing: `python -m recipe.train --out FOLDER`.

Two parts, each of which draws pictures, trains the vision part, writes down its visual tokens, trains the language
model on them and teaches [CLS] where to look: first on plain scenes from random weights, then on a blend of hard and
plain scenes from the weights of the first. Then FOLDER/checkpoint is exported. Everything is decided by seeds and
numbers of steps, nothing by the clock. A stage whose result is in FOLDER already is not run again.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from recipe.dataset import Pictures, Scenes, draw_pictures
from recipe.export import export
from recipe.language import Language
from recipe.language_training import accuracy, cache_tokens, cached, settle, train_language
from recipe.parallel import Schedule, run_parallel
from recipe.saliency_training import train_saliency
from recipe.vision_training import load_eyes, train_vision
from recipe.vocabulary import PLAIN_WORDS, WORDS
from recipe.worlds import HARD, PLAIN, Blend, Series

log = logging.getLogger(__name__)

QUICK_LOOK = (Series(PLAIN, 2), Series(HARD, 12))  # series of scenes that training never sees
BLEND = "blend"  # folder of the second part


@dataclass(frozen=True)
class Part:
    """One pass through all stages."""

    scenes: Scenes
    words: int  # of the vocabulary
    pictures: int
    vision: Schedule
    language: Schedule
    saliency: Schedule


@dataclass(frozen=True)
class Recipe:
    """All that decides the result."""

    first: Part = Part(
        Series(PLAIN, 1),
        words=len(PLAIN_WORDS),
        pictures=44_000,
        vision=Schedule(steps=4_400, batch=24),
        language=Schedule(steps=5_000, batch=24),
        saliency=Schedule(steps=200, batch=16, rate=3e-4, warmup=20),
    )
    second: Part = Part(
        Blend(22),
        words=len(WORDS),
        pictures=30_000,
        vision=Schedule(steps=2_800, batch=24, rate=8e-4, warmup=150, decay=0.75),
        language=Schedule(steps=4_800, batch=24, rate=8e-4, warmup=100, decay=0.75),
        saliency=Schedule(steps=200, batch=16, rate=3e-4, warmup=20),
    )
    seed: int = 7
    processes: int = 2  # each takes its share of a step's pictures, so this is part of the recipe
    checked: int = 160  # held-out pictures of each world for the quick look at the end


_SHORT = (Schedule(3, batch=4, warmup=1), Schedule(3, batch=4, warmup=1), Schedule(2, batch=4, warmup=1))
SMOKE = Recipe(
    Part(Series(PLAIN, 1), len(PLAIN_WORDS), 32, *_SHORT),
    Part(Blend(22), len(WORDS), 32, *_SHORT),
    processes=1,
    checked=8,
)


def make(recipe: Recipe, folder: Path) -> Path:
    """Run all stages in `folder` (16 GB for the full recipe); returns the checkpoint's folder."""
    _run(recipe, recipe.first, folder, None)
    _run(recipe, recipe.second, folder / BLEND, folder)
    return finish(recipe, folder)


def _run(recipe: Recipe, part: Part, folder: Path, start: Path | None) -> None:
    """All stages of one part, from the weights in the folder `start` if given."""
    folder.mkdir(parents=True, exist_ok=True)
    count, world, seed = part.pictures, recipe.processes, recipe.seed
    vision, language = (start / f"{name}.pt" if start else None for name in ("vision", "language"))
    pictures = draw_pictures(folder / "pictures", count, part.scenes, world)
    if not (folder / "vision.pt").exists():
        run_parallel(train_vision, world, folder, folder, count, seed, part.vision, part.words, vision)
    if not (folder / "tokens.done").exists():
        _settled(folder / "vision.pt", pictures, folder / "eyes.pt")
        cached(folder, count, "w+")
        run_parallel(cache_tokens, world, folder, folder, count, seed)
        (folder / "tokens.done").touch()
    if not (folder / "language.pt").exists():
        run_parallel(train_language, world, folder, folder, count, seed, part.language, language)
    if not (folder / "salient.pt").exists():
        run_parallel(train_saliency, world, folder, folder, count, seed, part.saliency)
    _settled(folder / "salient.pt", pictures, folder / "eyes.pt")


def _settled(trained: Path, pictures: Pictures, result: Path) -> None:
    eyes = load_eyes(trained)
    settle(eyes, pictures)
    torch.save(eyes.state_dict(), result)


def finish(recipe: Recipe, folder: Path) -> Path:
    """Export the trained parts and log how many held-out questions they answer."""
    eyes, language = load_eyes(folder / BLEND / "eyes.pt").eval(), Language()
    language.load_state_dict(torch.load(folder / BLEND / "language.pt"))
    export(eyes, language, folder / "checkpoint")
    for series in QUICK_LOOK:
        held_out = draw_pictures(folder / f"held-out-{series.world}", recipe.checked, series, recipe.processes)
        shares = accuracy(eyes, language.eval(), held_out)
        log.info("%s: %s", series.world, " ".join(f"{kind} {100 * share:.1f}" for kind, share in shares.items()))
    log.info("checkpoint in %s", folder / "checkpoint")
    return folder / "checkpoint"


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(prog="python -m recipe.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures, weights and the checkpoint")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few pictures: seconds, and no use")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    make(SMOKE if options.smoke else Recipe(), options.out)


if __name__ == "__main__":
    main()
