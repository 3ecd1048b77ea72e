"""What the rules of `fusion_rules.py` are built from: greedy choice by score and distance, spans, turns and masks.

Written for reading, not for speed: no padding, and the CPU only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from adafv.evidence import Selection, compress
from adafv.pruners.mixture import FLOOR


def cosines(vectors: Tensor) -> Tensor:
    """(B, N, N)."""
    unit = normalize(vectors.float(), dim=-1)
    return unit @ unit.mT


def kept(mask: Tensor, keep: int) -> Selection:
    """From a (B, N) mask."""
    return Selection(compress(mask, keep))


def greedy(score: Tensor, distance: Tensor, power: float, count: int) -> tuple[Tensor, Tensor]:
    """Takes `count` by score times (distance to the nearest one taken) ** power: (B, count) order, and its gains."""
    rows = torch.arange(len(score))
    taken, nearest = torch.zeros_like(score, dtype=torch.bool), torch.ones_like(score)
    order, gains = [], []
    for _ in range(count):
        fresh = score * nearest.clamp(min=1e-4) ** power
        best = fresh.masked_fill(taken, -1).argmax(dim=1)
        order.append(best)
        gains.append(fresh[rows, best])
        taken[rows, best] = True
        nearest = torch.minimum(nearest, distance[rows, best])
    return torch.stack(order, 1), torch.stack(gains, 1)


def complete(taken: Tensor, score: Tensor, distance: Tensor, power: float, keep: int) -> Tensor:
    """The mask `taken` with more tokens, by the same rule as `greedy`, until each row has `keep`."""
    rows, taken = torch.arange(len(score)), taken.clone()
    nearest = torch.where(taken[:, None], distance, 1.0).amin(dim=2).clamp(max=1)
    while int((left := keep - taken.sum(dim=1)).max()):
        fresh = score * nearest.clamp(min=1e-4) ** power
        best = fresh.masked_fill(taken, -1).argmax(dim=1)
        wanted = left > 0
        taken[rows[wanted], best[wanted]] = True
        nearest = torch.minimum(nearest, distance[rows, best])
    return taken


def split(salient: Tensor, similar: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """AdaFV's split of the budget, from (B, keep) gains of either ranking."""
    floor = int(FLOOR * keep)
    rest = keep - 2 * floor
    first, second = (pad(gain[:, floor : floor + rest].double().cumsum(1), (1, 0)) for gain in (salient, similar))
    more = (first * second.flip(1)).argmax(dim=1)
    return floor + more, floor + rest - more


def marked(order: Tensor, count: Tensor, visual: int) -> Tensor:
    """(B, visual) mask of the first `count` of each order."""
    place = torch.where(torch.arange(order.shape[1]) < count[:, None], order, visual)
    return torch.zeros(len(order), visual + 1, dtype=torch.bool).scatter_(1, place, True)[:, :-1]


def between_0_and_1(scores: Tensor) -> Tensor:
    """(B, N) float64, min-max scaled over each image."""
    least, most = scores.double().amin(1, True), scores.double().amax(1, True)
    return (scores - least + 1e-6) / (most - least).clamp(min=1e-6)


class Residuals:
    """What of each token's direction the taken ones do not span: a DPP's gain where all tokens matter alike."""

    def __init__(self, cosine: Tensor, most: int) -> None:
        self._cosine, self._rows, self._count = cosine.double(), torch.arange(len(cosine)), 0
        self.left = torch.ones_like(self._cosine[:, 0])
        self._factor = self.left.new_zeros(len(cosine), most, cosine.shape[1])

    def take(self, best: Tensor) -> None:
        """Take a token, (B,), of each image."""
        done, pivot = self._factor[:, : self._count], self.left[self._rows, best]
        row = self._cosine[self._rows, best] - torch.bmm(done[self._rows, :, best][:, None], done)[:, 0]
        row = torch.where((pivot > 1e-9)[:, None], row * pivot.clamp(min=1e-12).rsqrt()[:, None], 0.0)
        self._factor[:, self._count] = row
        self._count += 1
        self.left = (self.left - row.square()).clamp(min=0)


def spanning(score: Tensor, cosine: Tensor, keep: int, first: Tensor | None = None, count: int | Tensor = 0) -> Tensor:
    """Takes by score times residual: (2, B, keep) order and gains; the first `count` as `first` (B, keep) has them."""
    rows, residuals = torch.arange(len(score)), Residuals(cosine, keep)
    taken = torch.zeros_like(score, dtype=torch.bool)
    order, gains = [], []
    for step in range(keep):
        fresh = score * residuals.left
        best = fresh.masked_fill(taken, -1).argmax(dim=1)
        if first is not None:
            best = torch.where(step < torch.as_tensor(count), first[:, step], best)
        order.append(best)
        gains.append(fresh[rows, best])
        taken[rows, best] = True
        residuals.take(best)
    return torch.stack((torch.stack(order, 1).double(), torch.stack(gains, 1)))


def in_turn(rows: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Takes by what is added to the coverage of (B, R, N) rows: (B, keep) order, and its gains."""
    batch, best_so_far = torch.arange(len(rows)), torch.zeros_like(rows[..., 0])
    taken = torch.zeros_like(rows[:, 0], dtype=torch.bool)
    order, gains = [], []
    for _ in range(keep):
        fresh = (torch.maximum(rows, best_so_far[..., None]) - best_so_far[..., None]).sum(dim=1)
        best = fresh.masked_fill(taken, -1).argmax(dim=1)
        order.append(best)
        gains.append(fresh[batch, best])
        taken[batch, best] = True
        best_so_far = torch.maximum(best_so_far, rows[batch, :, best])
    return torch.stack(order, 1), torch.stack(gains, 1)
