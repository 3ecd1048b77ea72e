"""How much each candidate would add to what is covered already: sums of `max(0, M[r, i] - covered[r])` over rows r.

Sums are exact, in any order: entries lie on a grid that is so fine that float32 has all but the smallest entries on it
anyway, and so coarse that float64 adds up a whole column without rounding. So a sum may be carried along from step to
step, padding changes nothing, and equal candidates have equal gains, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafv.pruners.greedy import columns_of

BATCH = 2**22  # entries that are looked at together


class Coverage:
    """Rows to be covered, by candidates that are added one after another.

    Args:
        matrix: (B, R, N) float32, between 0 and 1, how well candidate i covers row r; zero where either is padding.
            Is changed in place.
        grid: entries are rounded to multiples of one part in `grid`, a power of two; times the largest sum of a column
            it must be at most 2^53.
    """

    def __init__(self, matrix: Tensor, grid: float) -> None:
        self._matrix = matrix.mul_(grid).round_().mul_(1 / grid)
        self._covered = torch.zeros_like(matrix[:, :, 0])
        # (B, N) float64, what each candidate would add.
        self.gains = torch.zeros_like(matrix[:, 0], dtype=torch.float64)
        self._step = max(1, BATCH // (len(matrix) * matrix.shape[2]))
        for start in range(0, matrix.shape[1], self._step):
            self.gains += matrix[:, start : start + self._step].sum(dim=1, dtype=torch.float64)

    def add(self, best: Tensor) -> None:
        """Add the candidate `best` (B, 1) of each image."""
        if best.device.type == "cpu":  # asking which rows changed is free there, and they soon are few
            self._add_by_changed_rows(best)
        else:
            self._add_by_all_rows(best)

    def _add_by_changed_rows(self, best: Tensor) -> None:
        for image, place in enumerate(best[:, 0].tolist()):
            matrix, covered = self._matrix[image], self._covered[image]
            column = matrix[:, place]
            rows = (column > covered).nonzero()[:, 0]
            low, high = covered[rows], column[rows]
            covered[rows] = high
            self._lose(matrix.index_select(0, rows)[None], low[None], high[None], self.gains[image : image + 1])

    def _add_by_all_rows(self, best: Tensor) -> None:
        before, self._covered = self._covered, torch.maximum(self._covered, columns_of(self._matrix, best))
        self._lose(self._matrix, before, self._covered, self.gains)

    def _lose(self, matrix: Tensor, low: Tensor, high: Tensor, gains: Tensor) -> None:
        """Subtract what each candidate gave these rows between their coverage before, `low`, and now, `high`."""
        for start in range(0, matrix.shape[1], self._step):
            rows = slice(start, start + self._step)
            lost = matrix[:, rows].clamp(low[:, rows, None], high[:, rows, None])
            gains -= lost.sum(dim=1, dtype=torch.float64)
        gains += low.sum(dim=1, dtype=torch.float64, keepdim=True)
