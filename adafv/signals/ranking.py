"""Rankings with settled ties: the same input gives the same order on every device and at every batch size."""

from __future__ import annotations

import torch
from torch import Tensor

from adafv.evidence import Evidence

_INDEX_BITS = 32


def ranking(scores: Tensor, valid: Tensor | None, depth: int) -> Tensor:
    """Rank the best `depth` candidates of each row, best first; of equal scores the lower index first.

    `topk` leaves the order of ties open. Non-negative floats sort like their bit patterns, so score and index are
    joined in one integer key, without ties.

    Args:
        scores: (..., N), not negative; compared as float32.
        valid: (..., N) bool or `None`; what is not valid comes last.
        depth: at most N.

    Returns:
        (..., depth) int64.
    """
    last = scores.shape[-1] - 1
    index = torch.arange(last + 1, device=scores.device)
    bits = (scores.float() + 0.0).view(torch.int32).long()  # + 0.0 turns -0.0, whose pattern is negative, into 0.0
    if valid is not None:
        bits = torch.where(valid, bits, -1)
    keys = (bits << _INDEX_BITS) | (last - index)
    best: Tensor = keys.topk(depth, dim=-1).values & (2**_INDEX_BITS - 1)
    return last - best


def fair_ranking(scores: Tensor, valid: Tensor, crop: Tensor, share: Tensor, depth: int) -> Tensor:
    """Rank each crop's best `share` candidates before anything else, so that every crop is heard.

    Args:
        scores, valid: as for `ranking`.
        crop: (B, N) int64, the crop of each candidate.
        share: (B,) int64, how many of one crop come first.
        depth: at most N.

    Returns:
        (B, depth) int64.
    """
    order = ranking(scores, valid, scores.shape[1])
    crop = torch.where(valid, crop, crop.amax() + 1).gather(1, order)
    # A second, stable order by crop counts each candidate's rank within its crop.
    by_crop = crop.argsort(dim=1, stable=True)
    grouped = crop.gather(1, by_crop)
    place = torch.arange(crop.shape[1], device=crop.device).expand_as(crop)
    starts = torch.where(grouped[:, 1:] != grouped[:, :-1], place[:, 1:], 0)
    first = torch.nn.functional.pad(starts, (1, 0)).cummax(dim=1).values
    within = torch.empty_like(place).scatter_(1, by_crop, place - first)
    late = (within >= share[:, None]) | ~valid.gather(1, order)
    return order.gather(1, late.byte().argsort(dim=1, stable=True)[:, :depth])


def saliency_ranking(evidence: Evidence, keep: int) -> Tensor:
    """Rank by saliency, at most ceil(K / crops) of one crop before more of it: (B, keep) int64."""
    if max(evidence.num_crops) == 1:
        return ranking(evidence.saliency, evidence.valid, keep)
    share = torch.tensor([-(-keep // crops) for crops in evidence.num_crops], device=evidence.saliency.device)
    return fair_ranking(evidence.saliency, evidence.valid, evidence.crop, share, keep)
