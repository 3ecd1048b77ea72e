"""Train the language model on packed crops: no token is ever dropped. A run that broke off goes on where it was."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recipe.next.batches import ASKED, Batch, asked, batch_of, lengths, order_of, prompt, show
from recipe.next.dataset import PICTURES, open_store
from recipe.next.language import Reading, TiledLanguage, grown_from
from recipe.next.losses import WEIGHTS, Readouts, tiled_losses
from recipe.parallel import FlatOptimizer, Schedule
from recipe.scores import Scores
from recipe.vision_losses import total
from recipe.vision_training import load_eyes

log = logging.getLogger(__name__)

SAVED_EVERY = 100  # steps


def read(language: TiledLanguage, words: Tensor, batch: Batch) -> tuple[Reading, Tensor, Tensor]:
    """One pass over a batch -> what it leaves behind, logits at the prompts' ends and at the answers, both (A, V)."""
    x, positions, mask = prompt(words, language.image_newline, batch)
    reading = language(x, positions, mask, batch.start)
    row, column = batch.pack.answer_place.unbind(1)
    return (
        reading,
        language.lm_head(reading.hidden[row, column]).float(),
        language.lm_head(reading.hidden[row, column + 1]).float(),
    )


def train_tiled(rank: int, world: int, folder: Path, count: int, seed: int, schedule: Schedule, released: Path) -> None:
    """Train on the store in `folder`, from the weights of a `Language` in `released`.

    Every hundred steps rank 0 writes `folder/state.pt`, from which a later run goes on, and at the end
    `folder/language.pt`.
    """
    store, words = open_store(folder / PICTURES, count), load_eyes(folder / "eyes.pt").words.detach()
    torch.manual_seed(seed)
    language, readouts = grown_from(torch.load(released)), Readouts()
    optimizer = FlatOptimizer([*language.parameters(), *readouts.parameters()], schedule)
    saved = folder / "state.pt"
    begun = optimizer.restore(torch.load(saved)) if saved.exists() else 0
    share, packed, started, scores = schedule.batch // world, lengths(store), time.monotonic(), Scores()
    per_epoch = len(order_of(seed, 0, rank, world, packed, share))
    epoch, order = -1, np.zeros((0, share), dtype=np.int64)
    for step in range(begun, schedule.steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = order_of(seed, epoch, rank, world, packed, share)
        rng = np.random.default_rng([seed, rank, step, 1])
        shown = show(store, order[step % per_epoch].tolist())
        batch = batch_of(shown, [asked(rng, things, ASKED) for things in shown.things.numpy()], rng)
        with torch.autocast("cpu", torch.bfloat16):
            reading, last, ends = read(language, words, batch)
        losses = tiled_losses(reading, (last, ends), batch, readouts)
        optimizer.step(total(losses, WEIGHTS), step)
        scores.add(last, batch.pack)
        if rank == 0 and (step % SAVED_EVERY == SAVED_EVERY - 1 or step in (0, 20)):
            text = " ".join(f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items())
            speed = (step + 1 - begun) * schedule.batch / (time.monotonic() - started)
            log.info("language %d %.1f/s %s | %s", step + 1, speed, text, scores.text())
            torch.save(optimizer.state(step + 1), folder / "state.part")
            (folder / "state.part").replace(saved)
            torch.save(language.state_dict(), folder / "language.part.pt")
    if rank == 0:
        torch.save(language.state_dict(), folder / "language.pt")
