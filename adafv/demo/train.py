"""Make the demo checkpoint from nothing: `python -m adafv.demo.train --out FOLDER`.

Draws the pictures, trains the vision part, writes down its visual tokens, trains the language model on them, teaches
[CLS] where to look, and exports FOLDER/checkpoint. Everything is decided by seeds and numbers of steps, nothing by the
clock. A stage whose result is in FOLDER already is not run again.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from adafv.demo.dataset import Pictures, draw_pictures
from adafv.demo.export import export
from adafv.demo.language import Language
from adafv.demo.language_training import accuracy, cache_tokens, cached, load_eyes, settle, train_language
from adafv.demo.parallel import Schedule, run_parallel
from adafv.demo.saliency_training import train_saliency
from adafv.demo.vision_training import Eyes, train_vision

log = logging.getLogger(__name__)

HELD_OUT_SEED = 2  # the series of scenes that training never sees


@dataclass(frozen=True)
class Recipe:
    """All that decides the result."""

    pictures: int = 44_000
    picture_seed: int = 1
    seed: int = 7
    processes: int = 2  # each takes its share of a step's pictures, so this is part of the recipe
    vision: Schedule = field(default_factory=lambda: Schedule(steps=4_400, batch=24))
    language: Schedule = field(default_factory=lambda: Schedule(steps=5_000, batch=24))
    saliency: Schedule = field(default_factory=lambda: Schedule(steps=200, batch=16, rate=3e-4, warmup=20))
    checked: int = 160  # held-out pictures for the quick look at the end


SMOKE = Recipe(
    pictures=32,
    processes=1,
    vision=Schedule(steps=3, batch=4, warmup=1),
    language=Schedule(steps=3, batch=4, warmup=1),
    saliency=Schedule(steps=2, batch=4, warmup=1),
    checked=8,
)


def make(recipe: Recipe, folder: Path) -> Path:
    """Run all stages in `folder` (9 GB for the full recipe); returns the checkpoint's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    count, world = recipe.pictures, recipe.processes
    pictures = draw_pictures(folder / "pictures", count, recipe.picture_seed, world)
    if not (folder / "vision.pt").exists():
        run_parallel(train_vision, world, folder, folder, count, recipe.seed, recipe.vision)
    if not (folder / "eyes.pt").exists():
        _settled(folder / "vision.pt", pictures, folder / "eyes.pt")
    if not (folder / "tokens.done").exists():
        cached(folder, count, "w+")
        run_parallel(cache_tokens, world, folder, folder, count, recipe.seed)
        (folder / "tokens.done").touch()
    if not (folder / "language.pt").exists():
        run_parallel(train_language, world, folder, folder, count, recipe.seed, recipe.language)
    if not (folder / "salient.pt").exists():
        run_parallel(train_saliency, world, folder, folder, count, recipe.seed, recipe.saliency)
    _settled(folder / "salient.pt", pictures, folder / "eyes.pt")
    return finish(recipe, folder)


def _settled(trained: Path, pictures: Pictures, result: Path) -> None:
    eyes = Eyes()
    eyes.load_state_dict(torch.load(trained))
    settle(eyes, pictures)
    torch.save(eyes.state_dict(), result)


def finish(recipe: Recipe, folder: Path) -> Path:
    """Export the trained parts and log how many held-out questions they answer."""
    eyes, language = load_eyes(folder), Language()
    language.load_state_dict(torch.load(folder / "language.pt"))
    export(eyes, language, folder / "checkpoint")
    held_out = draw_pictures(folder / "held-out", recipe.checked, HELD_OUT_SEED, recipe.processes)
    shares = accuracy(eyes, language.eval(), held_out)
    log.info("held-out: %s", " ".join(f"{kind} {100 * share:.1f}" for kind, share in shares.items()))
    log.info("checkpoint in %s", folder / "checkpoint")
    return folder / "checkpoint"


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(prog="python -m adafv.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures, weights and the checkpoint")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few pictures: seconds, and no use")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    make(SMOKE if options.smoke else Recipe(), options.out)


if __name__ == "__main__":
    main()
