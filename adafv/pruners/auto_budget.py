"""How many visual tokens an image and a question need: the budget `auto`, for any pruner. A rule of our own.

For one image with N candidates, its saliency, and the cosine c_ji of each word j of the question with candidate i:

    s_i = saliency_i / sum(saliency)
    t_i = max_j softmax_i(20 c_ji), divided by its sum                   # what the words match, softly
    I(p) = 1 - entropy(p) / log N                                        # 0 where all tokens are alike, 1 where one is
    e_i = (I(s)^2 s_i + I(t)^2 t_i) / (I(s)^2 + I(t)^2)                  # the evidence: who says more has more say
    K = the smallest k, from N/64 to 3N/8, whose k largest e_i hold the share `held` of what the 3N/8 largest hold

So a question whose words match a few tokens gets few, one whose words match many gets more, and where no word matches
anything the image's saliency decides. Both bounds are rounded up, and there are as many tokens as crops at least. Which
ones they are is the pruner's business. Nothing is trained; temperature, exponent and bounds were chosen on the demo's
scenes that are for choosing (`--split tune`), and measured on others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adafv.budget import bounds
from adafv.evidence import Evidence

READS = frozenset({"text"})
SHARPNESS = 20  # of the softmax: a fifth of what a token is chosen by, since here it counts how many match
_ROUNDING = 1e-9  # in a sum of shares: what is this near is reached, in a batch of any size


def budgets(evidence: Evidence, held: Sequence[float]) -> Tensor:
    """Choose a budget for each image of a batch, from its own row alone. Takes float64.

    Args:
        evidence: B images; saliency, cosines and the mask of the question's words are looked at.
        held: of each, the share of the evidence to hold, above 0 and at most 1.

    Returns:
        (B,) int64.
    """
    device = evidence.saliency.device
    least, most = torch.tensor([bounds(length) for length in evidence.lengths], device=device).unbind(1)
    shares, lengths = torch.tensor([held, evidence.lengths], dtype=torch.float64, device=device)
    signals = torch.stack((evidence.saliency.double(), _matched(evidence)))  # (2, B, N)
    signals = signals / signals.sum(dim=2, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    says = 1 - torch.special.entr(signals).sum(dim=2) / lengths.log().clamp(min=1)  # (2, B)
    mixed = (says.clamp(min=1e-6).square()[..., None] * signals).sum(dim=0)
    largest = mixed.sort(dim=1, descending=True).values[:, : int(most.max())].cumsum(dim=1)
    whole = largest.gather(1, most[:, None] - 1)
    needed = (largest < (shares[:, None] - _ROUNDING) * whole).sum(dim=1) + 1
    crops = torch.tensor(evidence.num_crops, device=device)
    return torch.minimum(torch.maximum(needed, torch.maximum(least, crops)), most)


def _matched(evidence: Evidence) -> Tensor:
    """Tell how well each candidate matches the question's word that it matches best: (B, N) float64."""
    outside = ~evidence.valid[:, None]
    rows = (SHARPNESS * evidence.cosine.double()).masked_fill(outside, -torch.inf).softmax(dim=2)
    return rows.masked_fill(~evidence.question_mask[..., None], 0).amax(dim=1)
