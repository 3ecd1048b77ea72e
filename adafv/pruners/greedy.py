"""What the pruners share that take one token after another: cosines of all pairs, and who was taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from adafv.evidence import Evidence, Selection
from adafv.signals.similarity import padded_unit_rows

PAIRS = 2**26  # of tokens that are held at once, 256 MiB; a single image may be larger
TINY = 1e-6  # may be rounding in a float32 cosine
BLOCK = 128  # rows of a matrix of cosines that are computed together


def select_greedily(
    order: Callable[[Evidence, int], Tensor], evidence: Evidence, keep: int, *, alone: bool = False
) -> Selection:
    """Select what `order` takes, in position order; a batch goes in portions whose pairs of tokens fit into memory.

    Args:
        order: `(evidence, keep)` to (B, keep) int64, the tokens in the order in which they are taken.
        evidence: B images.
        keep: the budget K.
        alone: take images one by one on a CPU, for methods that read much of the pairs at each step: those of one
            image stay in its cache.
    """
    parts = portions(evidence.lengths, 0 if alone and evidence.valid.device.type == "cpu" else PAIRS)
    taken = torch.cat([order(evidence.part(rows), keep) for rows in parts])
    return Selection(taken.sort(dim=1).values)


def portions(lengths: tuple[int, ...], pairs: int) -> Iterator[slice]:
    """Runs of images with at most as many `pairs` of tokens, padding included, or one image."""
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or (stop + 1 - start) * max(lengths[start : stop + 1]) ** 2 > pairs:
            yield slice(start, stop)
            start = stop


def cosines_of(evidence: Evidence, name: str, outside: float = 0.0, above: int = 0) -> Tensor:
    """Cosines of every two `tokens` or `features` of each image, as `cosine_matrices` has them.

    Where an image is there for several questions, they are computed for the first, and kept for the others.
    """
    return cosine_matrices(getattr(evidence, name), evidence.lengths, outside, above, evidence.cosines, name)


def cosine_matrices(
    vectors: Tensor,
    lengths: tuple[int, ...],
    outside: float = 0.0,
    above: int = 0,
    known: Sequence[dict[str, Tensor] | None] = (),
    name: str = "",
) -> Tensor:
    """Cosines of every two tokens of each image, in float32.

    Each image is multiplied at its own length, so that no padding changes how a product is rounded. What is within
    `TINY` of one is one: a token is as far from its duplicates as from itself.

    Args:
        vectors: (B, at least N, D).
        lengths: tokens of each image, of which the largest is N; what lies behind them is not looked at.
        outside: for pairs with padding.
        above: rows of zeros that come first, for something else.
        known: of each image, where cosines are looked up and kept under `name`, if anywhere.
        name: of these vectors.

    Returns:
        (B, above + N, N) float32.
    """
    most = max(lengths)
    matrices = torch.empty(len(lengths), above + most, most, dtype=torch.float32, device=vectors.device)
    matrices[:, :above] = 0
    kept = known or (None,) * len(lengths)
    for matrix, rows, length, own in zip(matrices[:, above:], vectors, lengths, kept, strict=True):
        if own is not None and name in own:
            matrix[:length, :length] = own[name]
        else:
            _gram(padded_unit_rows(rows[:length]), matrix[:length, :length])
        if own is not None and name not in own:
            own[name] = matrix[:length, :length].clone()
        matrix[length:] = outside
        matrix[:, length:] = outside
    return matrices


def _gram(rows: Tensor, out: Tensor) -> None:
    """Multiply `rows @ rows.T` into `out`; blocks under the diagonal are mirrored, which saves nearly half the work."""
    for start in range(0, len(out), BLOCK):
        end = min(start + BLOCK, len(out))
        block = (rows[start : start + BLOCK] @ rows[start:].T)[: end - start, : len(out) - start]
        out[start:end, start:] = block.masked_fill_(block > 1 - TINY, 1.0)
        out[end:, start:end] = out[start:end, end:].T


def rows_of(matrices: Tensor, best: Tensor) -> Tensor:
    """Take of each of the (B, M, N) `matrices` the row named by `best` (B, 1): (B, N)."""
    first = torch.arange(len(best), device=best.device) * matrices.shape[1]
    return matrices.flatten(0, 1).index_select(0, first + best[:, 0])


def columns_of(matrices: Tensor, best: Tensor) -> Tensor:
    """Take of each of the (B, R, N) `matrices` the column named by `best` (B, 1): (B, R)."""
    return matrices.gather(2, best[:, None].expand(-1, matrices.shape[1], 1))[..., 0]


class Taken:
    """Tokens taken one after another; neither padding nor a token taken before is taken.

    Args:
        valid: (B, N) bool.
        keep: how many will be taken.
    """

    def __init__(self, valid: Tensor, keep: int) -> None:
        self.order = torch.zeros(len(valid), keep, dtype=torch.long, device=valid.device)
        self._closed = ~valid
        self._count = 0

    def take(self, scores: Tensor) -> Tensor:
        """Take the best by (B, N) `scores`, of equals the first: (B, 1). No host synchronisation."""
        best = scores.masked_fill(self._closed, -torch.inf).argmax(dim=1, keepdim=True)
        self._closed.scatter_(1, best, True)
        self.order[:, self._count : self._count + 1] = best
        self._count += 1
        return best
