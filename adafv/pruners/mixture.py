"""The self-adaptive mixture of AdaFV (arXiv 2501.09532): each image and question splits the budget its own way.

For one image, with saliency s, similarity t and a budget of K tokens:

    floor = int(0.25 * K)
    by_s, by_t = rank(candidates, s), rank(candidates, t)            # best first, of equals the lower index
    kept_s, kept_t = by_s[:floor], by_t[:floor]                      # either ranking is sure of its best quarter
    k1, k2 = split(by_s[floor:], by_t[floor:], K - 2 * floor)
    kept_s, kept_t = kept_s + by_s[floor:][:k1], kept_t + by_t[floor:][:k2]

    while (left := K - len(set(kept_s + kept_t))) > 0:               # a token in both lists counts once
        by_s, by_t = (those that are not kept, in the same order)
        k1, k2 = split(by_s, by_t, left)
        kept_s, kept_t = kept_s + by_s[:k1], kept_t + by_t[:k2]

    def split(by_s, by_t, places):                                   # the geometric mean of what is gained is largest
        gain = lambda k1: sum(s[by_s[:k1]]) * sum(t[by_t[:places - k1]])
        k1 = max(range(places + 1), key=gain)                        # of equals the smallest
        return k1, places - k1

With several crops, `by_s` has at most ceil(K / crops) of one crop before it has more of it, so that every crop is
heard. The authors' released code feeds a token that is in both lists twice, and fewer than K distinct ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafv.evidence import Evidence, Selection, compress
from adafv.signals.ranking import ranking, saliency_ranking

FLOOR = 0.25  # the share of the budget that either ranking is sure of (the released code's `budget_thres`)


def mixture(evidence: Evidence, keep: int) -> Selection:
    """Keep exactly `keep` distinct candidates of each image. No host synchronisation on accelerators.

    Args:
        evidence: B images, at least `keep` candidates each.
        keep: the budget K.

    Returns:
        The selection, with the signal that chose each token.
    """
    scores = torch.stack((evidence.saliency, evidence.relevance))  # (2, B, N): everything is done to both at once
    order = _rankings(scores, evidence, keep)
    floor = int(FLOOR * keep)
    rest = keep - 2 * floor
    left = torch.full_like(order[0, :, :1], rest)
    chosen = torch.zeros(*scores.shape[:2], scores.shape[2] + 1, dtype=torch.bool, device=scores.device)
    _mark(chosen, order, floor + _split(scores.gather(2, order)[..., floor:], left, rest))

    # One list of the two fills half of the places at least, so each round leaves at most half of them open.
    most = keep // 2
    while most:
        kept = chosen[0] | chosen[1]
        left = keep - kept[:, :-1].sum(dim=1, keepdim=True)
        if left.device.type == "cpu":  # free to ask on a CPU; elsewhere it would wait, and idle rounds do no harm
            most = int(left.max())
            if not most:
                break
        # What is left, ranked afresh: the same order without what is kept.
        order = order.gather(2, compress(~kept.expand(2, -1, -1).gather(2, order), most))
        _mark(chosen, order, _split(scores.gather(2, order), left, most))
        most //= 2
    by_saliency, by_similarity = chosen[..., :-1]
    return Selection.of_mask(by_saliency | by_similarity, keep, by_saliency, by_similarity)


def _rankings(scores: Tensor, evidence: Evidence, keep: int) -> Tensor:
    """Rank the best by saliency and the best by similarity: (2, B, keep)."""
    if max(evidence.num_crops) == 1:
        return ranking(scores, evidence.valid, keep)
    return torch.stack((saliency_ranking(evidence, keep), ranking(scores[1], evidence.valid, keep)))


def _split(scores: Tensor, left: Tensor, most: int) -> Tensor:
    """Split the `left` places between saliency and similarity so that the product of what they gain is largest.

    Args:
        scores: (2, B, >= most), of saliency and similarity, best first.
        left: (B, 1) int64, at most `most`.

    Returns:
        (2, B, 1) int64, k1 and k2; of equal products the one with the smallest k1.
    """
    gained, matched = torch.nn.functional.pad(scores[..., :most].double().cumsum(dim=2), (1, 0))
    others = left - torch.arange(most + 1, device=left.device)  # k2 for each k1
    product = gained * matched.gather(1, others.clamp(min=0))
    first = product.masked_fill(others < 0, -1).argmax(dim=1, keepdim=True)
    return torch.stack((first, left - first))


def _mark(mask: Tensor, order: Tensor, count: Tensor) -> None:
    """Set `mask` (2, B, N + 1) at the first `count` (2, B, 1) of each ranking (2, B, M).

    What is not chosen is written to the last column, which nobody reads.
    """
    chosen = torch.arange(order.shape[2], device=order.device) < count
    mask.scatter_(2, torch.where(chosen, order, mask.shape[2] - 1), True)
