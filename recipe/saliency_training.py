"""Stage 1b: [CLS] learns to look at what is big, while the visual tokens stay what they are.

Real CLIP towers attend to what is big, so that a small asked object is often not salient; that is the case AdaFV
exists for. Stage 1 alone gives small things as much attention per patch as big ones.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recipe.dataset import SKY, open_pictures
from recipe.parallel import FlatOptimizer, Schedule
from recipe.vision_losses import Labels
from recipe.vision_training import JITTER, batch_of, describe, load_eyes, normalised

log = logging.getLogger(__name__)

BIAS = 0.15  # a patch is wanted as salient as this power of its thing's area: 1.5 to 1 for big against small
STAY = 30.0  # weight of the mean squared change of the visual tokens against their mean square


def wanted(labels: Labels) -> Tensor:
    """Share of [CLS]'s attention that each patch should get, (B, patches), rows sum to one."""
    area = labels.of_patches()[..., 4].clamp(min=1e-3).pow(BIAS)
    weight = torch.where(labels.owners < SKY, area, 0.01)
    return weight / weight.sum(1, keepdim=True)


def train_saliency(rank: int, world: int, folder: Path, count: int, seed: int, schedule: Schedule) -> None:
    """Continue from `folder/vision.pt`; rank 0 writes `folder/salient.pt`."""
    pictures = open_pictures(folder / "pictures", count)
    torch.manual_seed(seed)
    before, eyes = load_eyes(folder / "vision.pt"), load_eyes(folder / "vision.pt")
    eyes.words.requires_grad_(False)
    optimizer = FlatOptimizer([p for p in eyes.parameters() if p.requires_grad], schedule)
    rng, started = np.random.default_rng([seed, rank, 4]), time.monotonic()
    share = schedule.batch // world
    for step in range(schedule.steps):
        chosen = rng.choice(np.arange(rank, count, world), share, replace=False)
        pixels, labels = batch_of(pictures, chosen, rng.random(share) < 0.5)
        shown = normalised(pixels, torch.from_numpy(rng.uniform(1 - JITTER, 1 + JITTER, share).astype(np.float32)))
        with torch.autocast("cpu", torch.bfloat16):
            tokens, _, saliency = eyes(shown)
            with torch.no_grad():
                expected = before(shown)[0].float()
        attention = (saliency + 1e-7) / (saliency + 1e-7).sum(1, keepdim=True)
        look = functional.kl_div(attention.log(), wanted(labels), reduction="batchmean")
        change = (tokens.float() - expected).square().mean() / expected.square().mean()
        optimizer.step(look + STAY * change, step)
        if rank == 0 and (step % 50 == 49 or step == 0):
            speed = (step + 1) * schedule.batch / (time.monotonic() - started)
            losses = f"look {float(look.detach()):.3f} change {float(change.detach()):.5f}"
            text = describe(tokens, saliency, eyes.words, labels)
            log.info("saliency %d %.0f/s %s | %s", step + 1, speed, losses, text)
    if rank == 0:
        torch.save(eyes.state_dict(), folder / "salient.pt")
