"""Draws the tokens of an answer: each row by random numbers of its own, whatever batch it is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, TopPLogitsWarper

from adafv.settings import RunSettings


class Chooser(LogitsProcessor):  # type: ignore[misc]
    """Passes greedy logits through; draws a sampled token itself, and masks all others for `generate`'s argmax.

    Each row has random numbers of its own: what is drawn for it depends neither on the batch nor on other rows. It
    also remembers whether the first token's scores were numbers; asked once, when all is done.
    """

    _AHEAD = 64  # random numbers of a row that are made together

    def __init__(self, run: RunSettings, seeds: Sequence[int], device: torch.device) -> None:
        self._temperature, self._top_p = run.temperature, run.top_p
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._draws = torch.empty(len(seeds), 0, device=device)  # (B, steps so far)
        self._rows, self._offset = list(range(len(seeds))), 0
        self.finite: Tensor | None = None

    def restart(self, rows: list[int], offset: int) -> None:
        """Go on with these rows; they have `offset` tokens more than `input_ids` will show."""
        self._rows, self._offset = rows, offset

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask all tokens but the one that is drawn for each row: (B, V) scores in, and out."""
        if self.finite is None:
            self.finite = torch.isfinite(scores).all()
        return self.choose(self._offset + input_ids.shape[1], scores)

    def choose(self, step: int, scores: Tensor) -> Tensor:
        """Do the same for the tokens at `step`, counted from 0."""
        if not self._temperature:
            return scores
        draw = self._drawn(step)
        scores = (scores - scores.amax(dim=1, keepdim=True)) / self._temperature
        if self._top_p < 1:
            scores = TopPLogitsWarper(self._top_p)(scores.new_empty(0), scores)  # which asks for no ids
        shares = scores.softmax(dim=1).cumsum(dim=1)
        drawn = (shares <= draw * shares[:, -1:]).sum(dim=1, keepdim=True)
        last = (shares < shares[:, -1:]).sum(dim=1, keepdim=True)  # that may be drawn, should the product round up
        return torch.full_like(scores, -torch.inf).scatter(1, torch.minimum(drawn, last), 0.0)

    def _drawn(self, step: int) -> Tensor:
        """Draw the random number of each present row for the token at `step`: (rows, 1)."""
        if step >= self._draws.shape[1]:
            more = torch.stack([torch.rand(self._AHEAD, generator=one) for one in self._generators])
            self._draws = torch.cat([self._draws, more.to(self._draws.device)], dim=1)
        return self._draws[self._rows, step, None]
