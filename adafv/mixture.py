"""The self-adaptive mixture of AdaFV (arXiv 2501.09532): each image and question splits the budget its own way.

Saliency and similarity each rank the candidates. The best quarter of the budget is kept of either ranking. The
rest is split so that (saliency gained) * (similarity gained), the geometric mean of both, is largest.

Where the authors' released code feeds a token that is in both lists twice, here it counts once, and the places this
frees are filled by the same rule from what is left, until exactly K distinct tokens are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafv.budget import Budget
from adafv.errors import InputError
from adafv.evidence import Evidence, Selection, check_scores, compress
from adafv.ranking import fair_ranking, ranking

FLOOR = 0.25  # the share of the budget that either ranking is sure of (the released code's `budget_thres`)


def mixture(evidence: Evidence, keep: int) -> Selection:
    """Keep exactly `keep` distinct candidates of each image. No host synchronisation on accelerators.

    Args:
        evidence: B images, at least `keep` candidates each.
        keep: the budget K.

    Returns:
        The selection, with the signal that chose each token.
    """
    saliency, similarity = evidence.saliency.double(), evidence.relevance.double()
    salient = saliency_ranking(evidence, keep)
    similar = ranking(evidence.relevance, evidence.valid, keep)

    floor = int(FLOOR * keep)
    rest = keep - 2 * floor
    left = torch.full_like(salient[:, :1], rest)
    more = _split(saliency.gather(1, salient)[:, floor:], similarity.gather(1, similar)[:, floor:], left, rest)
    by_saliency = _mark(_nothing(evidence), salient, floor + more)
    by_similarity = _mark(_nothing(evidence), similar, floor + left - more)

    # One list of the two fills half of the places at least, so each round leaves at most half of them open.
    most = keep // 2
    while most:
        kept = by_saliency | by_similarity
        left = keep - kept[:, :-1].sum(dim=1, keepdim=True)
        if left.device.type == "cpu" and not left.any():  # free to ask on a CPU; elsewhere it would wait
            break
        salient, similar = _without(kept, salient, most), _without(kept, similar, most)
        more = _split(saliency.gather(1, salient), similarity.gather(1, similar), left, most)
        _mark(by_saliency, salient, more)
        _mark(by_similarity, similar, left - more)
        most //= 2
    by_saliency, by_similarity = by_saliency[:, :-1], by_similarity[:, :-1]
    return Selection.of_mask(by_saliency | by_similarity, keep, by_saliency, by_similarity)


def saliency_ranking(evidence: Evidence, keep: int) -> Tensor:
    """With several crops, at most ceil(K / crops) of one crop come before more of it do."""
    if max(evidence.crops) == 1:
        return ranking(evidence.saliency, evidence.valid, keep)
    share = torch.tensor([-(-keep // crops) for crops in evidence.crops], device=evidence.saliency.device)
    return fair_ranking(evidence.saliency, evidence.valid, evidence.crop, share, keep)


def _split(saliency: Tensor, similarity: Tensor, left: Tensor, most: int) -> Tensor:
    """k1, the places that saliency gets of the `left` ones, so that the product of both sums is largest.

    Args:
        saliency, similarity: (B, >= most) float64, best first.
        left: (B, 1) int64, at most `most`.

    Returns:
        (B, 1) int64; of equal products the smallest k1.
    """
    gained, matched = (torch.nn.functional.pad(x[:, :most].cumsum(dim=1), (1, 0)) for x in (saliency, similarity))
    others = left - torch.arange(most + 1, device=left.device)  # k2 for each k1
    product = gained * matched.gather(1, others.clamp(min=0))
    return product.masked_fill(others < 0, -1).argmax(dim=1, keepdim=True)


def _without(kept: Tensor, order: Tensor, count: int) -> Tensor:
    """The first `count` of each ranking (B, M) that are not `kept` (B, N + 1) yet."""
    return order.gather(1, compress(~kept.gather(1, order), count))


def _nothing(evidence: Evidence) -> Tensor:
    """(B, N + 1) bool, all false; the last column is where `_mark` writes what is not chosen."""
    batch, visual = evidence.valid.shape
    return evidence.valid.new_zeros(batch, visual + 1)


def _mark(mask: Tensor, order: Tensor, count: Tensor) -> Tensor:
    """Set `mask` at the first `count` (B, 1) of each ranking (B, M)."""
    chosen = torch.arange(order.shape[1], device=order.device) < count
    return mask.scatter_(1, torch.where(chosen, order, mask.shape[1] - 1), True)


def select(saliency: Tensor, similarity: Tensor, keep: Budget | str | int, *, crop: Tensor | None = None) -> Tensor:
    """AdaFV's choice from two scores per visual token.

    Args:
        saliency: (B, N), [CLS] attention; compared as float32.
        similarity: (B, N), text-to-image similarity; compared as float32.
        keep: the budget: `128`, `"25%"` or `"all"`.
        crop: (B, N) int64, the crop of each candidate, counted from 0; one crop when omitted.

    Returns:
        (B, K) int64, distinct, ascending; K is N when the budget is larger.

    Raises:
        BudgetError: `keep` is no budget.
        InputError: shapes that differ, or scores that are NaN, infinite or negative.
    """
    if saliency.ndim != 2 or saliency.shape != similarity.shape or not saliency.numel():
        raise InputError(
            f"saliency {tuple(saliency.shape)} and similarity {tuple(similarity.shape)} are not one (B, N)",
            "give both as (batch, visual tokens)",
        )
    check_scores("saliency", saliency)
    check_scores("similarity", similarity)
    batch, visual = saliency.shape
    evidence = Evidence(
        saliency=saliency.float(),
        similarity=similarity.float()[:, None],
        valid=torch.ones_like(saliency, dtype=torch.bool),
        crop=torch.zeros_like(saliency, dtype=torch.long) if crop is None else crop,
        crops=(1,) * batch if crop is None else tuple((crop.amax(dim=1) + 1).tolist()),
        grids=(((1, visual),),) * batch,
        seeds=(0,) * batch,
    )
    return mixture(evidence, Budget.parse(keep).tokens(visual)).indices
