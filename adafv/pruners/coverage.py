"""How much each candidate would add to what is covered already: sums of `max(0, M[r, i] - covered[r])` over rows r.

Sums are exact, in any order: entries lie on a grid of 2^-36, which float32 has anyway from 2^-13 up, and float64 adds
up to 2^17 of them without rounding. So a sum may be carried along from step to step, padding changes nothing, and
equal candidates have equal gains, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafv.pruners.greedy import columns_of

GRID = 2.0**36
BATCH = 2**22  # entries that are looked at together


class Coverage:
    """Rows to be covered, by candidates that are added one after another.

    Args:
        matrix: (B, R, N) float32, between 0 and 1, how well candidate i covers row r; zero where either is padding.
            Is changed in place.
    """

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix.mul_(GRID).round_().mul_(1 / GRID)
        self._covered = torch.zeros_like(matrix[:, :, 0])
        # (B, N) float64, what each candidate would add.
        self.gains = torch.zeros_like(matrix[:, 0], dtype=torch.float64)
        self._step = max(1, BATCH // (len(matrix) * matrix.shape[2]))
        for start in range(0, matrix.shape[1], self._step):
            self.gains += matrix[:, start : start + self._step].sum(dim=1, dtype=torch.float64)

    def add(self, best: Tensor) -> None:
        """Add the candidate `best` (B, 1) of each image."""
        before, self._covered = self._covered, torch.maximum(self._covered, columns_of(self._matrix, best))
        if self._matrix.device.type == "cpu":  # asking which rows changed is free there, and they soon are few
            self._lose_in_changed_rows(before)
        else:
            self._lose(self._matrix, before, self._covered, self.gains)

    def _lose_in_changed_rows(self, before: Tensor) -> None:
        changed = before < self._covered
        for image, matrix in enumerate(self._matrix):
            rows = changed[image].nonzero()[:, 0]
            low, high = before[image, rows], self._covered[image, rows]
            self._lose(matrix.index_select(0, rows)[None], low[None], high[None], self.gains[image : image + 1])

    def _lose(self, matrix: Tensor, low: Tensor, high: Tensor, gains: Tensor) -> None:
        """Subtract what each candidate gave these rows between their coverage before, `low`, and now, `high`."""
        for start in range(0, matrix.shape[1], self._step):
            rows = slice(start, start + self._step)
            lost = matrix[:, rows].clamp(low[:, rows, None], high[:, rows, None])
            gains -= lost.sum(dim=1, dtype=torch.float64)
        gains += low.sum(dim=1, dtype=torch.float64, keepdim=True)
