"""Tokens that are far from each other: max-min diversity (DivPrune, arXiv 2503.02175).

The distance of two tokens is `1 - cos(v_i, v_k)` of what the language model would take. First comes the token whose
nearest other token is farthest, then each time the one whose distance to its nearest kept token is largest.

The first token needs all pairs, so their cosines are computed once, 2 N^2 D FLOPs and 4 N^2 bytes, and each step reads
one row of them: O(K N) comparisons. Without the matrix, each step would read all N x D values again.

Where the released code differs: it reads the rows of all kept tokens again at each step, O(K^2 N), and it may take a
token twice when only duplicates of kept ones are left. Cosines are in the model's half precision there, where many are
equal, so that it may share as little as an eighth of its tokens with the same rule in float32, as here. It too chooses
over all crops together, but with LLaVA-NeXT's `image_newline` embeddings among the candidates.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from adafv import flops
from adafv.evidence import Evidence
from adafv.pruners import Pruner
from adafv.pruners.greedy import Taken, cosines_of, rows_of, select_greedily


def order(evidence: Evidence, keep: int) -> Tensor:
    """Order tokens as they are taken: (B, keep) int64."""
    distance = cosines_of(evidence, "tokens", outside=-torch.inf).neg_().add_(1)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # no token is its own neighbour
    taken = Taken(evidence.valid, keep)
    # Over rows and columns, so that two tokens that are nearest to each other tie whatever the rounding.
    best = taken.take(torch.minimum(distance.amin(dim=1), distance.amin(dim=2)))
    nearest = rows_of(distance, best)
    for _ in range(keep - 1):
        best = taken.take(nearest)
        nearest = torch.minimum(nearest, rows_of(distance, best))
    return taken.order


PRUNER = Pruner(
    partial(select_greedily, order),
    reads=frozenset({"tokens"}),
    flops=lambda work: flops.cosine_matrix(work.visual, work.hidden),
    by_image=True,
)
