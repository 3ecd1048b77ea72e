"""Salient tokens that cover the others: saliency times coverage (SCOPE, NeurIPS 2025), with the paper's alpha = 1.

Token k is covered by the kept token that it is most like: `m_k = max(0, max over kept i of cos(f_k, f_i))`, of the
vision tower's features. Each time the token is taken with the largest `s_i * sum_k max(0, cos(f_k, f_i) - m_k)`.

Where the released code differs: it chooses K / crops in each crop on its own (`--crop-budget each`), and in the model's
half precision; here cosines are float32 and sums exact.

2 N^2 C FLOPs and 4 N^2 bytes for the cosines of all pairs; then at most K N^2 comparisons, of which the CPU makes
only those in rows whose coverage changed: about N of them at first, and soon few.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from adafv import flops
from adafv.evidence import Evidence
from adafv.pruners import Pruner, Work
from adafv.pruners.coverage import Coverage
from adafv.pruners.greedy import Taken, cosines_of, select_greedily

GRID = 2.0**36  # for up to 2^17 rows


def order(evidence: Evidence, keep: int) -> Tensor:
    """Order tokens as they are taken: (B, keep) int64."""
    coverage = Coverage(cosines_of(evidence, "features").clamp_(min=0), GRID)
    taken = Taken(evidence.valid, keep)
    for _ in range(keep):
        coverage.add(taken.take(evidence.saliency * coverage.gains))
    return taken.order


def _flops(work: Work) -> int:
    return flops.cosine_matrix(work.visual, work.features) + flops.coverage(work.visual, work.visual, work.keep)


PRUNER = Pruner(partial(select_greedily, order, alone=True), reads=frozenset({"features"}), flops=_flops, by_image=True)
