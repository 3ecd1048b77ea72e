"""Tokens that cover the question and the image (MMTok, arXiv 2508.18264).

Text rows are `P_ji = softmax over i of (cos(e_j, v_i) / 0.02)`, divided by their number T; vision rows are
`Q_ki = softmax over i of (cos(f_k, f_i) / 0.2)`, divided by N. A row is covered as well as by the best of the kept
tokens, and each time the token is taken that adds most to the coverage of all rows, vision rows weighing half.

2 N^2 C FLOPs and 4 N^2 bytes for the vision rows; then at most K (T + N) N comparisons, of which the CPU makes only
those in rows whose coverage changed: about N of them at first, and soon few.

Where the released code differs: its text rows are the question's words without stop words and without the usual
instructions on the form of the answer; here they are the question's own tokens. It chooses K / crops in each crop on
its own, with that crop's softmaxes (`--crop-budget each`), and leaves out patches of square padding, which here are
candidates like all others. Here cosines and softmaxes are float32 whatever the model's precision, and sums exact.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from adafv import flops
from adafv.evidence import Evidence
from adafv.pruners import Pruner, Work
from adafv.pruners.coverage import Coverage
from adafv.pruners.greedy import Taken, cosines_of, select_greedily

TEXT_TEMPERATURE, VISION_TEMPERATURE = 0.02, 0.2
VISION_WEIGHT = 0.5
GRID = 2.0**51  # the weighted rows add up to 1.5, text and image together


def order(evidence: Evidence, keep: int) -> Tensor:
    """Order tokens as they are taken: (B, keep) int64."""
    coverage, taken = Coverage(rows_to_cover(evidence), GRID), Taken(evidence.valid, keep)
    for _ in range(keep):
        coverage.add(taken.take(coverage.gains))
    return taken.order


def rows_to_cover(evidence: Evidence) -> Tensor:
    """Stack text rows and vision rows, weighted: (B, T + N, N), zero for other text and on padding.

    The question's own tokens are spread over the candidates, and each candidate over the others and itself.
    """
    texts = evidence.cosine.shape[1]
    rows = cosines_of(evidence, "features", above=texts)
    words = evidence.question_mask.sum(dim=1).clamp(min=1)
    for row, cosine, count, length in zip(rows, evidence.cosine, words, evidence.lengths, strict=True):
        row[:texts, :length] = (cosine[:, :length] / TEXT_TEMPERATURE).softmax(dim=-1) / count
        own = row[texts : texts + length, :length]
        own.copy_((own / VISION_TEMPERATURE).softmax(dim=-1).mul_(VISION_WEIGHT / length))
    rows[:, :texts].masked_fill_(~evidence.question_mask[..., None], 0.0)
    return rows


def _flops(work: Work) -> int:
    rows = work.question + work.visual
    return flops.cosine_matrix(work.visual, work.features) + flops.coverage(rows, work.visual, work.keep)


PRUNER = Pruner(partial(select_greedily, order, alone=True), reads=frozenset({"text", "features"}), flops=_flops)
