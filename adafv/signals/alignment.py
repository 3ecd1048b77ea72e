"""How well a checkpoint's words point at its visual tokens: what text-aware pruning has to go by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """How a question's words match the visual tokens of an image.

    Args:
        word: the text token whose cosine peaks highest, counted from the first behind the image.
        peak: its largest cosine.
        spread: the standard deviation of its cosine over the visual tokens.
        chance: the same of two random directions in a space of that width, 1 / sqrt(D).
    """

    word: int
    peak: float
    spread: float
    chance: float

    @property
    def signal(self) -> float:
        """The spread that chance does not explain, in multiples of chance: sqrt(spread² / chance² - 1), at least 0."""
        return math.sqrt(max(0.0, (self.spread / self.chance) ** 2 - 1))


def alignment(cosine: Tensor, question: Tensor, width: int) -> Alignment:
    """Measure the alignment of one image and question.

    Args:
        cosine: (T, N) of text and visual tokens.
        question: (T,) bool, which of the text tokens are the question's own.
        width: D, of the space that both are in.
    """
    peaks = cosine.amax(dim=1).masked_fill(~question, -math.inf)
    best = int(peaks.argmax())
    spread = float(cosine[best].float().std(correction=0))
    return Alignment(best, float(peaks[best]), spread, 1 / math.sqrt(width))
