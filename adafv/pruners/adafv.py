"""AdaFV's mixture of saliency and text-to-image similarity (arXiv 2501.09532); the rule itself is in `mixture`."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from adafv.budget import Budget
from adafv.errors import InputError, shown
from adafv.evidence import Evidence, check_scores
from adafv.pruners import Pruner
from adafv.pruners.crops import each
from adafv.pruners.mixture import mixture

PRUNER = Pruner(mixture, reads=frozenset({"text"}))


def select(
    saliency: Tensor,
    similarity: Tensor,
    keep: Budget | str | int,
    *,
    crop: Tensor | None = None,
    crop_budget: Literal["joint", "each"] = "joint",
) -> Tensor:
    """AdaFV's choice from two scores per visual token.

    Args:
        saliency: (B, N), attention of [CLS], say; compared as float32.
        similarity: (B, N), text-to-image similarity; compared as float32.
        keep: the budget: `128`, `"25%"` or `"all"`.
        crop: (B, N) int64, the crop of each candidate, counted from 0; one crop when omitted.
        crop_budget: `joint` chooses among all crops together, `each` within every crop its share of the budget.

    Returns:
        (B, K) int64, distinct, ascending; K is N when the budget is larger.

    Raises:
        BudgetError: `keep` is no budget.
        InputError: `keep` is `auto`, shapes that differ, scores that are NaN, infinite or negative, another
            `crop_budget`, or with `each` fewer tokens than crops.
    """
    if saliency.ndim != 2 or saliency.shape != similarity.shape or not saliency.numel():
        raise InputError(
            f"saliency {tuple(saliency.shape)} and similarity {tuple(similarity.shape)} are not one (B, N)",
            "give both as (batch, visual tokens)",
        )
    if crop is not None and (crop.shape != saliency.shape or bool((crop < 0).any())):
        raise InputError(f"crop {tuple(crop.shape)} does not number the crop of each score, from 0", "give (B, N)")
    check_scores("saliency", saliency)
    check_scores("similarity", similarity)
    if crop_budget not in ("joint", "each"):
        raise InputError(f"crop_budget: {shown(crop_budget)} is not one of joint, each", "choose from joint, each")
    evidence, visual = Evidence.of_scores(saliency, similarity[:, None], crop), saliency.shape[1]
    budget = Budget.parse(keep)
    if budget.held is not None:
        what = f"keep: {budget.text} keeps a number of each row's own, and (B, K) has one K"
        raise InputError(what, "give a number or a share; `adafv.pruners.auto_budget` finds the numbers")
    count = budget.tokens(visual)
    if crop_budget == "each" and count < visual:
        return each(mixture, evidence, count, rescore=False).indices
    return mixture(evidence, count).indices
