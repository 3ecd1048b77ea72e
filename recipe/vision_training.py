"""Stage 1: vision tower, projector and input embeddings, by the losses on visual tokens."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.dataset import GROUND, SKY, Pictures, open_pictures
from recipe.digits import MIRRORED
from recipe.drawing import GRID
from recipe.network import HIDDEN, Projector, Vision
from recipe.parallel import FlatOptimizer, Schedule
from recipe.vision_losses import WEIGHTS, Heads, Labels, total, vision_losses
from recipe.vocabulary import CLASS_IDS, COLOUR_IDS, WORDS

log = logging.getLogger(__name__)

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])
JITTER = 0.12  # of brightness


class Eyes(nn.Module):
    """Everything of the checkpoint that stage 1 trains."""

    def __init__(self, words: int = len(WORDS)) -> None:
        super().__init__()
        self.vision, self.projector = Vision(), Projector()
        self.words = nn.Parameter(torch.randn(words, HIDDEN) * 0.5)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised pixels -> visual tokens (B, patches, hidden), [CLS] feature (B, hidden), saliency (B, patches)."""
        features, saliency = self.vision(pixels)
        return self.projector(features[:, 1:]), features[:, 0], saliency


def load_eyes(file: Path) -> Eyes:
    """A trained vision part."""
    state = torch.load(file)
    eyes = Eyes(len(state["words"]))
    eyes.load_state_dict(state)
    return eyes


def normalised(pixels: Tensor, gain: Tensor | None = None) -> Tensor:
    """uint8 (B, side, side, 3) -> float (B, 3, side, side) with CLIP's mean and deviation; gain (B,) brightens."""
    light = pixels.float() / 255
    if gain is not None:
        light = (light * gain[:, None, None, None]).clamp(max=1)
    return ((light - MEAN) / DEVIATION).permute(0, 3, 1, 2)


def batch_of(pictures: Pictures, chosen: np.ndarray, mirrored: np.ndarray) -> tuple[Tensor, Labels]:
    """Pixels (B, side, side, 3) uint8 and labels of some pictures, each mirrored where its flag is set."""
    pixels, owners, fringe, things, strokes = [], [], [], [], []
    for index, mirror in zip(chosen, mirrored, strict=True):
        step = -1 if mirror else 1
        pixels.append(pictures.pixels[index][:, ::step])
        owners.append(pictures.owners[index].reshape(GRID, GRID)[:, ::step].ravel())
        fringe.append(pictures.fringe[index].reshape(GRID, GRID)[:, ::step].ravel())
        row, marks = np.array(pictures.things[index]), np.array(pictures.strokes[index])
        if mirror:
            row[:, 2] = 1 - row[:, 2]
            marks = marks.reshape(GRID, GRID, -1)[:, ::-1, MIRRORED].reshape(marks.shape)
        things.append(row)
        strokes.append(marks)
    labels = Labels(
        owners=torch.from_numpy(np.stack(owners).astype(np.int64)),
        fringe=torch.from_numpy(np.stack(fringe).astype(bool)),
        things=torch.from_numpy(np.stack(things)),
        strokes=torch.from_numpy(np.stack(strokes).astype(np.float32)),
    )
    return torch.from_numpy(np.stack(pixels)), labels


def grown(trained: dict[str, Tensor], name: str, now: Tensor) -> dict[str, Tensor]:
    """Weights whose table `name` has rows for fewer words than now: the new words' rows are those of `now`."""
    old = trained[name]
    return trained | {name: torch.cat([old, now.detach()[len(old) :]])}


@torch.no_grad()
def _expect_flat(eyes: Eyes, heads: Heads, pictures: Pictures, batches: int = 4) -> None:
    """Expected background tokens start from the averages of what the trained tower makes: steps would take too long."""
    units, owners, plain = [], [], []
    for start in range(0, min(24 * batches, len(pictures)), 24):
        chosen = np.arange(start, min(start + 24, len(pictures)))
        pixels, labels = batch_of(pictures, chosen, np.zeros(len(chosen), dtype=bool))
        units.append(functional.rms_norm(eyes(normalised(pixels))[0], (HIDDEN,)))
        owners.append(labels.owners)
        plain.append((labels.owners >= SKY) & ~labels.fringe)
    unit, owner, flat = torch.cat(units), torch.cat(owners), torch.cat(plain)
    for number, name in enumerate((SKY, GROUND)):
        heads.ground[number] = unit[flat & (owner == name)].mean(0)
    rest = (unit - heads.ground[(owner == GROUND).long()]) * flat[..., None]
    heads.position.copy_(rest.sum(0) / flat.sum(0).clamp(min=1)[:, None])


def train_vision(
    rank: int, world: int, folder: Path, count: int, seed: int, schedule: Schedule, words: int, start: Path | None
) -> None:
    """Train on the pictures in `folder/pictures`, from weights in `start` if given; rank 0 writes `folder/vision.pt`.

    Going on from trained weights, only the readouts learn at first: they are new and would spoil the rest.
    """
    pictures = open_pictures(folder / "pictures", count)
    torch.manual_seed(seed)
    eyes, heads = Eyes(words), Heads()
    if start is not None:
        eyes.load_state_dict(grown(torch.load(start), "words", eyes.words))
        _expect_flat(eyes, heads, pictures)
    optimizer = FlatOptimizer([*eyes.parameters(), *heads.parameters()], schedule)
    rng = np.random.default_rng([seed, rank])
    share, started = schedule.batch // world, time.monotonic()
    order = np.array([], dtype=np.int64)
    for step in range(schedule.steps):
        if len(order) < share:
            order = rng.permutation(np.arange(rank, count, world))
        chosen, order = order[:share], order[share:]
        pixels, labels = batch_of(pictures, chosen, rng.random(share) < 0.5)
        gain = torch.from_numpy(rng.uniform(1 - JITTER, 1 + JITTER, share).astype(np.float32))
        with torch.autocast("cpu", torch.bfloat16):
            tokens, cls, saliency = eyes(normalised(pixels, gain))
        table: Tensor = eyes.words
        if start is not None and step < schedule.warmup:
            tokens, cls, table = tokens.detach(), cls.detach(), table.detach()
        losses = vision_losses(tokens, cls, table, heads, labels)
        optimizer.step(total(losses, WEIGHTS), step)
        if rank == 0 and (step % 100 == 99 or step in (0, 20)):
            text = " ".join(f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items())
            speed = (step + 1) * schedule.batch / (time.monotonic() - started)
            log.info("vision %d %.0f/s %s | %s", step + 1, speed, text, describe(tokens, saliency, eyes.words, labels))
            torch.save(eyes.state_dict(), folder / "vision.part.pt")
    if rank == 0:
        torch.save(eyes.state_dict(), folder / "vision.pt")


@torch.no_grad()
def describe(tokens: Tensor, saliency: Tensor, words: Tensor, labels: Labels) -> str:
    """Right class and colour among object patches, and saliency per patch on big and small things against its mean."""
    scores = functional.normalize(tokens.float(), dim=-1) @ functional.normalize(words, dim=-1).T
    own, is_thing = labels.of_patches(), labels.owners < SKY
    kind = (scores[..., list(CLASS_IDS)].argmax(-1) == own[..., 0])[is_thing].float().mean()
    colour = (scores[..., list(COLOUR_IDS)].argmax(-1) == own[..., 1])[is_thing].float().mean()
    relative = saliency / saliency.mean(1, keepdim=True)
    big, small = is_thing & (own[..., 4] > 0.04), is_thing & (own[..., 4] < 0.012)
    ratio = (float(relative[mask].mean()) if mask.any() else float("nan") for mask in (big, small))
    return "class {:.3f} colour {:.3f} saliency big {:.1f} small {:.1f}".format(float(kind), float(colour), *ratio)
