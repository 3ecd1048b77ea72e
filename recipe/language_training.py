"""Stage 2: the language model, on visual tokens that stage 1 has made and that no longer change."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recipe.dataset import Pictures, open_pictures
from recipe.facts import facts_of
from recipe.language import Language, Thoughts
from recipe.language_losses import WEIGHTS, Readouts, answerable, kept_of, language_losses
from recipe.network import HIDDEN
from recipe.packing import OPENING, START_IDS, Pack, attention_mask, choose_tokens, pack
from recipe.parallel import FlatOptimizer, Schedule
from recipe.questions import HARD_KINDS, SceneQuestion, ask, training_questions
from recipe.scores import Scores
from recipe.vision_losses import PATCHES, total
from recipe.vision_training import JITTER, Eyes, grown, load_eyes, normalised

log = logging.getLogger(__name__)

ASKED = 10  # questions a picture
EARLY = (64, 96, 128, 160, 256)  # visual tokens kept in the first quarter of training from nothing
LATE = (256, 256, 256, 256, 192, 160, 128, 96, 64, 64, 32, 16)


def cached(folder: Path, count: int, mode: str = "r") -> np.ndarray:
    """Visual tokens on disk, (count, patches, hidden) float16."""
    return np.memmap(folder / "tokens.bin", dtype=np.float16, mode=mode, shape=(count, PATCHES, HIDDEN))  # type: ignore[call-overload,no-any-return]


@torch.no_grad()
def see(eyes: Eyes, pixels: np.ndarray, gain: Tensor | None = None) -> Tensor:
    """Visual tokens (B, patches, hidden) of uint8 pictures (B, side, side, 3)."""
    with torch.autocast("cpu", torch.bfloat16):
        tokens: Tensor = eyes(normalised(torch.from_numpy(np.array(pixels)), gain))[0]
    return tokens.float()


@torch.no_grad()
def settle(eyes: Eyes, pictures: Pictures) -> None:
    """Scale words and visual tokens to a root mean square of one; no cosine changes."""
    eyes.words.div_(eyes.words.square().mean(1, keepdim=True).sqrt())
    size = see(eyes, pictures.pixels[:64]).square().mean().sqrt()
    eyes.projector.linear_2.weight.div_(size)
    eyes.projector.linear_2.bias.div_(size)


def cache_tokens(rank: int, world: int, folder: Path, count: int, seed: int) -> None:
    """Write every training picture's visual tokens, each picture at its own brightness."""
    pictures, eyes, tokens = (
        open_pictures(folder / "pictures", count),
        load_eyes(folder / "eyes.pt"),
        cached(folder, count, "r+"),
    )
    gains = np.random.default_rng([seed, 2]).uniform(1 - JITTER, 1 + JITTER, count).astype(np.float32)
    for start in range(rank * 16, count, world * 16):
        part = slice(start, min(start + 16, count))
        tokens[part] = see(eyes, pictures.pixels[part], torch.from_numpy(gains[part])).numpy()


def run_pack(language: Language, words: Tensor, visual: Tensor, batch: Pack) -> tuple[Thoughts, Tensor, Tensor]:
    """Visual tokens (B, K, hidden) and questions -> thoughts, logits at the prompts' ends and at the answers (A, V)."""
    start = OPENING + visual.shape[1]
    opening = words[list(START_IDS)].expand(len(visual), -1, -1)
    x = torch.cat([opening, visual, words[batch.ids]], dim=1)
    positions = torch.cat([torch.arange(start).expand(len(visual), -1), batch.positions + start], dim=1)
    thoughts = language(x, positions, attention_mask(batch.question, start), start)
    row, column = batch.answer_place.unbind(1)
    return (
        thoughts,
        language.lm_head(thoughts.hidden[row, column]).float(),
        language.lm_head(thoughts.hidden[row, column + 1]).float(),
    )


def train_language(
    rank: int,
    world: int,
    folder: Path,
    count: int,
    seed: int,
    schedule: Schedule,
    start: Path | None = None,
    dropping: bool = True,
) -> None:
    """Train on cached tokens, from weights in `start` if given; rank 0 writes `folder/language.pt`.

    Unless `dropping`, every step sees all visual tokens, as the training of a real LLaVA does.
    """
    pictures, tokens = open_pictures(folder / "pictures", count), cached(folder, count)
    words = load_eyes(folder / "eyes.pt").words.detach()
    torch.manual_seed(seed)
    language, readouts = Language(len(words)), Readouts()
    if start is not None:
        language.load_state_dict(grown(torch.load(start), "lm_head.weight", language.lm_head.weight))
    early = schedule.steps // 4 if start is None else 0
    optimizer = FlatOptimizer([*language.parameters(), *readouts.parameters()], schedule)
    rng, common = np.random.default_rng([seed, rank]), np.random.default_rng([seed, 99])
    share, started, scores = schedule.batch // world, time.monotonic(), Scores()
    order = np.array([], dtype=np.int64)
    for step in range(schedule.steps):
        if len(order) < share:
            order = rng.permutation(np.arange(rank, count, world))
        chosen, order = np.sort(order[:share]), order[share:]
        keep = int(common.choice(EARLY if step < early else LATE)) if dropping else PATCHES
        owners = pictures.owners[chosen]
        kept = choose_tokens(owners, keep, rng.random(share) < (0.9 if step < early else 0.6), rng)
        visual = torch.from_numpy(np.take_along_axis(tokens[chosen], kept[..., None], axis=1).astype(np.float32))
        things = np.array(pictures.things[chosen])
        batch = pack([training_questions(rng, facts_of(row), ASKED) for row in things], things, rng)
        owned = torch.from_numpy(owners.astype(np.int64))
        strokes = torch.from_numpy(np.take_along_axis(pictures.strokes[chosen], kept[..., None], axis=1))
        shown = kept_of(owned.gather(1, torch.from_numpy(kept)), owned, strokes)
        with torch.autocast("cpu", torch.bfloat16):
            thoughts, last, ends = run_pack(language, words, visual, batch)
        losses = language_losses(thoughts, (last, ends), batch, shown, torch.from_numpy(things[..., 2:4]), readouts)
        optimizer.step(total(losses, WEIGHTS), step)
        scores.add(last, batch, answerable(batch, shown))
        if rank == 0 and (step % 100 == 99 or step in (0, 20)):
            text = " ".join(f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items())
            speed = (step + 1) * schedule.batch / (time.monotonic() - started)
            log.info("language %d %.0f/s keep %d %s | %s", step + 1, speed, keep, text, scores.text())
            torch.save(language.state_dict(), folder / "language.part.pt")
    if rank == 0:
        torch.save(language.state_dict(), folder / "language.pt")


def held_out(pictures: Pictures, seed: int) -> tuple[list[list[SceneQuestion]], np.ndarray]:
    """One question of every kind on each picture that allows it, and the stored things."""
    rng, things = np.random.default_rng(seed), np.array(pictures.things)
    asked: list[Sequence[SceneQuestion | None]] = [
        [ask(rng, facts_of(row), kind) for kind in HARD_KINDS] for row in things
    ]
    return [[question for question in row if question is not None] for row in asked], things


@torch.no_grad()
def accuracy(eyes: Eyes, language: Language, pictures: Pictures, seed: int = 5) -> dict[str, float]:
    """Share of right answers by kind with all visual tokens; a quick look, `gates` is the judge."""
    questions, things = held_out(pictures, seed)
    scores = Scores()
    for start in range(0, len(things), 16):
        part = slice(start, start + 16)
        batch = pack(questions[part], things[part], np.random.default_rng(0))
        _, last, _ = run_pack(language, eyes.words, see(eyes, pictures.pixels[part]), batch)
        scores.add(last, batch)
    return scores.shares()
