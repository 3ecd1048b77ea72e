"""Make the second checkpoint: `python -m recipe.next --out FOLDER`.

It begins with the weights of the first, as it is bundled. Scenes are drawn; the vision part learns crops; places are
taken out of its tokens; these are written down, and the language model learns to read them in LLaVA-NeXT's packing,
every one of them there. Everything is decided by seeds and numbers of steps, nothing by the clock. A stage whose
result is in FOLDER is not run again, and one that broke off goes on: drawing at the next picture, the language model
at its last hundred steps.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from recipe.control import RELEASED
from recipe.export import exported_eyes, exported_language
from recipe.next.dataset import PICTURES, draw_store, encode_store, open_store
from recipe.next.erasing import erase_places
from recipe.next.export import export_next
from recipe.next.language import TiledLanguage
from recipe.next.training import train_tiled
from recipe.next.vision import train_crops
from recipe.parallel import Schedule, run_parallel
from recipe.vision_training import load_eyes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NextRecipe:
    """All that decides the result."""

    pictures: int
    vision: Schedule
    measured: int  # pictures by whose crops places are taken out
    language: Schedule
    scenes: int = 31  # seed
    seed: int = 7
    processes: int = 2  # each takes its share of a step's pictures, so this is part of the recipe


RELEASE = NextRecipe(
    pictures=6_000,
    vision=Schedule(steps=500, batch=24, rate=4e-4, warmup=30, decay=0.8),
    measured=400,
    language=Schedule(steps=1_600, batch=16, rate=8e-4, warmup=60, decay=0.65),
)
SMOKE = NextRecipe(
    pictures=8,
    vision=Schedule(2, batch=4, warmup=1),
    measured=4,
    language=Schedule(2, batch=4, warmup=1),
    processes=1,
)


def make(recipe: NextRecipe, folder: Path) -> Path:
    """Run all stages in `folder`; returns the checkpoint's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    count, world, seed = recipe.pictures, recipe.processes, recipe.seed
    eyes, language, begun = (folder / f"{name}.pt" for name in ("eyes", "language", "first-eyes"))
    if not open_store(folder / PICTURES, count, "r+").size.all():
        run_parallel(draw_store, world, folder, folder, count, recipe.scenes)
    torch.save(exported_eyes(RELEASED).state_dict(), begun)
    if not (folder / "vision.pt").exists():
        run_parallel(train_crops, world, folder, folder, count, seed, recipe.vision, begun)
    if not eyes.exists():
        torch.save(erase_places(folder, recipe.measured).state_dict(), eyes)
    if not (folder / "tokens.done").exists():
        run_parallel(encode_store, world, folder, folder, count, eyes)
        (folder / "tokens.done").touch()
    if not language.exists():
        torch.save(exported_language(RELEASED), folder / "first-language.pt")
        start = folder / "first-language.pt"
        run_parallel(train_tiled, world, folder, folder, count, seed, recipe.language, start)
    trained = TiledLanguage()
    trained.load_state_dict(torch.load(language))
    export_next(load_eyes(eyes).eval(), trained, folder / "checkpoint")
    return folder / "checkpoint"


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(prog="python -m recipe.next", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures, weights and the checkpoint")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few pictures: seconds, and no use")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    log.info("checkpoint in %s", make(SMOKE if options.smoke else RELEASE, options.out))


if __name__ == "__main__":
    main()
