"""Teach the first checkpoint's vision part crops: what a thumbnail squeezes, and in which view to name a thing.

A patch names its thing in the thing's home view alone; in the other it says sky or ground, as background does. Which
view a crop is shows in how much its things are squeezed. The losses are those of the first checkpoint without the two
that taught patches where they are: instead a patch tells how far the middle of its thing is and how much of it there is
in the crop, the same wherever in the crop it lies.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.dataset import GROUND, SKY
from recipe.drawing import GRID
from recipe.network import HIDDEN
from recipe.next.dataset import PICTURES, Store, open_store
from recipe.next.mosaic import mosaic_of
from recipe.parallel import FlatOptimizer, Schedule
from recipe.saliency_training import wanted
from recipe.vision_losses import PATCHES, WEIGHTS, Heads, Labels, total, vision_losses
from recipe.vision_training import Eyes, describe, load_eyes, normalised

log = logging.getLogger(__name__)

CROP_WEIGHTS = {name: weight for name, weight in WEIGHTS.items() if name not in ("place", "object")} | {
    "relative": 1.0,
    "salient": 0.15,
    "view": 0.3,
    "hidden": 1.0,
}
THUMBNAILS = 0.4  # of the crops that it learns from
REACH = 4.0  # patches from a thing's middle that count as one


def crop_labels(store: Store, pictures: np.ndarray, crops: np.ndarray) -> Labels:
    """Truth of one crop of each of some pictures; of a thing that is cut, what the crop shows of it."""
    cells = crops[:, None] * PATCHES + np.arange(PATCHES)
    owners = np.take_along_axis(store.owners[pictures], cells, axis=1).astype(np.int64)
    fringe = np.take_along_axis(store.fringe[pictures], cells, axis=1)
    strokes = np.take_along_axis(store.strokes[pictures], cells[..., None], axis=1)
    things = np.array(store.things[pictures])
    own = owners[:, None] == np.arange(things.shape[1])[:, None]  # (B, things, PATCHES)
    count = own.sum(-1)
    row, column = (np.arange(PATCHES) // GRID + 0.5) / GRID, (np.arange(PATCHES) % GRID + 0.5) / GRID
    things[..., 2] = (own * column).sum(-1) / count.clip(1)
    things[..., 3] = (own * row).sum(-1) / count.clip(1)
    things[..., 4] = count / PATCHES
    things[count == 0] = -1
    return Labels(
        torch.from_numpy(owners),
        torch.from_numpy(fringe.astype(bool)),
        torch.from_numpy(things),
        torch.from_numpy(strokes.astype(np.float32)),
    )


def relative(labels: Labels) -> Tensor:
    """Of each patch of a thing: how far its middle is, in columns and rows, and its patches, (B, PATCHES, 3)."""
    own = labels.of_patches()
    cell = torch.arange(PATCHES)
    place = (torch.stack([cell % GRID, cell // GRID], dim=1) + 0.5) / GRID
    size = (own[..., 4:5].clamp(min=1 / PATCHES).log() + 4) / 1.5
    return torch.cat([(own[..., 2:4] - place) * GRID / REACH, size], dim=-1)


@dataclass(frozen=True)
class Crops:
    """Crops of B pictures, one of each."""

    pixels: Tensor  # (B, SIDE, SIDE, 3) uint8
    labels: Labels
    is_thumbnail: Tensor  # (B,) bool
    hidden: Tensor  # (B, PATCHES) bool: shows a thing whose home is the other view


def _some(store: Store, rng: np.random.Generator, among: np.ndarray, number: int) -> Crops:
    """Take random crops of random pictures."""
    pictures = np.sort(rng.choice(among, number, replace=False))
    tiles = np.array([rng.integers(1, mosaic_of(*map(int, size)).crops) for size in store.size[pictures]])
    crops = np.where(rng.random(number) < THUMBNAILS, 0, tiles)
    pixels = np.stack([store.pixels[index, crop] for index, crop in zip(pictures, crops, strict=True)])
    hidden = store.hidden[pictures].reshape(number, -1, PATCHES)[np.arange(number), crops]
    labels = crop_labels(store, pictures, crops)
    return Crops(torch.from_numpy(pixels), labels, torch.from_numpy(crops == 0), torch.from_numpy(hidden > 0))


@torch.no_grad()
def _expect_flat(eyes: Eyes, heads: Heads, crops: Crops) -> None:
    """Expected sky and ground start from the averages of what the tower makes of them."""
    unit, labels = functional.rms_norm(eyes(normalised(crops.pixels))[0], (HIDDEN,)), crops.labels
    for number, owner in enumerate((SKY, GROUND)):
        heads.ground[number] = unit[(labels.owners == owner) & ~labels.fringe].mean(0)


def _as_background(tokens: Tensor, heads: Heads, labels: Labels, hidden: Tensor) -> Tensor:
    """A patch that may not name its thing is as background is there: a trace of a name would be found and read."""
    expected = heads.ground[(labels.owners == GROUND).long()] + heads.position
    unit = functional.rms_norm(tokens.float(), (HIDDEN,))
    return ((unit - expected.detach()).square().mean(-1) * hidden).sum() / hidden.sum().clamp(min=1)


def train_crops(rank: int, world: int, folder: Path, count: int, seed: int, schedule: Schedule, start: Path) -> None:
    """Train on single crops of the store in `folder`, from the weights `start`; rank 0 writes `folder/vision.pt`."""
    store = open_store(folder / PICTURES, count)
    torch.manual_seed(seed)
    eyes, heads, own, view = load_eyes(start), Heads(), nn.Linear(HIDDEN, 3), nn.Linear(HIDDEN, 1)
    parts = [heads.cls, heads.strokes, own, view, eyes]
    optimizer = FlatOptimizer([heads.ground, *(p for part in parts for p in part.parameters())], schedule)
    rng, started, share = np.random.default_rng([seed, rank, 5]), time.monotonic(), schedule.batch // world
    _expect_flat(eyes, heads, _some(store, np.random.default_rng([seed, 6]), np.arange(count), min(48, count)))
    for step in range(schedule.steps):
        crops = _some(store, rng, np.arange(rank, count, world), share)
        labels = crops.labels
        with torch.autocast("cpu", torch.bfloat16):
            tokens, cls, saliency = eyes(normalised(crops.pixels))
        table: Tensor = eyes.words
        if step < schedule.warmup:  # the readouts are new, and would spoil the rest
            tokens, cls, table = tokens.detach(), cls.detach(), table.detach()
        losses = vision_losses(tokens, cls, table, heads, labels)
        is_thing = labels.owners < SKY
        losses["relative"] = (own(tokens.float()) - relative(labels)).square().mean(-1)[is_thing].mean()
        attention = (saliency + 1e-7) / (saliency + 1e-7).sum(1, keepdim=True)
        told = view(cls.float())[:, 0]
        losses["view"] = functional.binary_cross_entropy_with_logits(told, crops.is_thumbnail.float())
        losses["hidden"] = _as_background(tokens, heads, labels, crops.hidden)
        losses["salient"] = functional.kl_div(attention.log(), wanted(labels), reduction="batchmean")
        optimizer.step(total(losses, CROP_WEIGHTS), step)
        if rank == 0 and (step % 50 == 49 or step in (0, 20)):
            text = " ".join(f"{name} {float(losses[name].detach()):.3f}" for name in CROP_WEIGHTS)
            speed = (step + 1) * schedule.batch / (time.monotonic() - started)
            log.info("crops %d %.0f/s %s | %s", step + 1, speed, text, describe(tokens, saliency, eyes.words, labels))
    if rank == 0:
        torch.save(eyes.state_dict(), folder / "vision.pt")
