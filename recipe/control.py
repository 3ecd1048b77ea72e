"""Train the control: `python -m recipe.control --out FOLDER`.

The bundled checkpoint's language model was trained on prompts with dropped visual tokens, so that pruning is not
training-free for it. The control has the same vision part, to the bit, and a language model of the same shape that is
trained from nothing on the same scenes and never sees a prompt without all of its visual tokens. The same table for
both says what the dropping decides.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from recipe.dataset import draw_pictures
from recipe.export import export, exported_eyes
from recipe.language import Language
from recipe.language_training import cache_tokens, cached, train_language
from recipe.parallel import Schedule, run_parallel
from recipe.train import Recipe

log = logging.getLogger(__name__)

RELEASED = Path(__file__).parent.parent / "adafv" / "demo" / "checkpoint"
SCHEDULE = Schedule(steps=4_800, batch=24)


def make(folder: Path, pictures: int, schedule: Schedule, processes: int) -> Path:
    """Draw the scenes of the recipe's second part and train on them; returns the checkpoint's folder.

    What is in `folder` already is not made again.
    """
    recipe = Recipe()
    folder.mkdir(parents=True, exist_ok=True)
    draw_pictures(folder / "pictures", pictures, recipe.second.scenes, processes)
    eyes = exported_eyes(RELEASED)
    torch.save(eyes.state_dict(), folder / "eyes.pt")
    if not (folder / "tokens.done").exists():
        cached(folder, pictures, "w+")
        run_parallel(cache_tokens, processes, folder, folder, pictures, recipe.seed)
        (folder / "tokens.done").touch()
    if not (folder / "language.pt").exists():
        run_parallel(train_language, processes, folder, folder, pictures, recipe.seed, schedule, None, False)
    language = Language()
    language.load_state_dict(torch.load(folder / "language.pt"))
    export(eyes, language, folder / "checkpoint")
    return folder / "checkpoint"


def main() -> None:
    """Command line of the control."""
    parser = argparse.ArgumentParser(prog="python -m recipe.control", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures, weights and the checkpoint")
    parser.add_argument("--pictures", type=int, default=Recipe().second.pictures, help="drawn for training")
    parser.add_argument("--steps", type=int, default=SCHEDULE.steps, help="of the language model's training")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    done = make(options.out, options.pictures, Schedule(options.steps, SCHEDULE.batch), Recipe().processes)
    log.info("checkpoint in %s", done)


if __name__ == "__main__":
    main()
