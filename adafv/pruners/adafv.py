"""AdaFV's mixture of saliency and text-to-image similarity (arXiv 2501.09532); the rule itself is in `mixture`."""

from __future__ import annotations

from torch import Tensor

from adafv.budget import Budget
from adafv.errors import InputError
from adafv.evidence import Evidence, check_scores
from adafv.pruners import Pruner
from adafv.pruners.mixture import mixture

PRUNER = Pruner(mixture, reads=frozenset({"text"}))


def select(saliency: Tensor, similarity: Tensor, keep: Budget | str | int, *, crop: Tensor | None = None) -> Tensor:
    """AdaFV's choice from two scores per visual token.

    Args:
        saliency: (B, N), attention of [CLS], say; compared as float32.
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
    if crop is not None and (crop.shape != saliency.shape or bool((crop < 0).any())):
        raise InputError(f"crop {tuple(crop.shape)} does not number the crop of each score, from 0", "give (B, N)")
    check_scores("saliency", saliency)
    check_scores("similarity", similarity)
    evidence = Evidence.of_scores(saliency, similarity[:, None], crop)
    return mixture(evidence, Budget.parse(keep).tokens(saliency.shape[1])).indices
