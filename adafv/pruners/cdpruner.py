"""Tokens that matter to the question and differ from each other: a conditional DPP (CDPruner, arXiv 2506.10967).

The kernel is `L_ik = r_i cos(v_i, v_k) r_k`; tokens are taken so that each time the determinant of the kept part of L
grows most, by incremental Cholesky factorisation (Chen, Zhang and Zhou 2018): 2 N^2 D FLOPs for the cosines of all
pairs and K^2 N for the factor, 4 N^2 and 8 K N bytes.

Relevance is `r_i = mean over j of cos(e_j, v_i)` over the text behind the image, scaled over the image to (0, 1]. The
paper's is the negated mean cosine of CLIP's image and text embeddings, for which Hugging Face's LLaVA checkpoints have
no text tower; OpenVINO GenAI takes the mean in the language model's space for them, as here.

The factor is float64: residuals are what is left of 1 after many subtractions. A residual of less than `SPANNED` of
the token's own is rounding of the float32 cosines and counts as zero: duplicates and tokens in the span of kept ones
come last, by relevance.

Where the released code differs: it chooses K / crops in each crop on its own (`--crop-budget each`), its relevance
scaled over all crops of the image all the same; vectors are normalised in the model's precision, and all that follows
is float32; it divides by the root of residuals that have reached zero, whose NaNs leave it with fewer than K tokens.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from adafv import flops
from adafv.evidence import Evidence
from adafv.pruners import Pruner, Work
from adafv.pruners.greedy import Taken, columns_of, cosines_of, rows_of, select_greedily

OFFSET = 1e-6  # keeps the least relevant token in the running
SPANNED = 1e-5  # of a token's own share of the kernel, several times what float32 makes of its cosines


def order(evidence: Evidence, keep: int) -> Tensor:
    """Order tokens as they are taken: (B, keep) int64."""
    relevance = scaled_relevance(evidence)
    cosine = cosines_of(evidence, "tokens")
    own = relevance.square() * cosine.diagonal(dim1=1, dim2=2)
    residual = own.clone()  # what each token would add: the square of its part that kept tokens do not span
    factor = residual.new_zeros(len(residual), keep, residual.shape[1])
    taken = Taken(evidence.valid, keep)
    for step in range(keep):
        scores = torch.where(residual > 0, residual, relevance - 2)  # relevance is at most 2
        best = taken.take(scores.float())  # in which equal tokens are equal, whatever float64 made of them
        pivot = residual.gather(1, best)
        row = rows_of(cosine, best) * relevance * relevance.gather(1, best)
        done = factor[:, :step]
        row -= torch.bmm(columns_of(done, best)[:, None], done)[:, 0]
        row = torch.where(pivot > 0, row * pivot.rsqrt(), 0.0)
        factor[:, step] = row
        residual -= row.square()
        residual.masked_fill_(residual < SPANNED * own, 0.0)
    return taken.order


def scaled_relevance(evidence: Evidence) -> Tensor:
    """Scale relevance to (0, 1]: (B, N) float64; ones where no token matters more than another, zero on padding."""
    relevance = torch.zeros_like(evidence.saliency, dtype=torch.float64)
    parts = zip(relevance, evidence.cosine, evidence.text_lengths, evidence.lengths, strict=True)
    for row, cosine, text_length, length in parts:
        if text_length:
            mean = cosine[:text_length, :length].double().mean(dim=0)
            least, most = mean.aminmax()
            # A common factor changes nothing, so the span may be given a floor.
            row[:length] = (mean - least + OFFSET) / (most - least).clamp(min=OFFSET)
        else:
            row[:length] = 1.0
    return relevance


def _flops(work: Work) -> int:
    return flops.cosine_matrix(work.visual, work.hidden) + flops.cholesky(work.visual, work.keep)


PRUNER = Pruner(partial(select_greedily, order), reads=frozenset({"text", "tokens"}), flops=_flops)
