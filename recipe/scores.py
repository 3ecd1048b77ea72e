"""What a language model in training answers rightly, by kind of question."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from torch import Tensor

from recipe.packing import Pack


class Scores:
    """Share of right answers by kind since the last report."""

    def __init__(self) -> None:
        self._right: dict[str, list[float]] = defaultdict(list)

    def add(self, logits: Tensor, batch: Pack, fair: Tensor | None = None) -> None:
        """Count the answers of a batch, (A, V); of those in `fair` alone, (A,), where it is given."""
        right = (logits.detach().argmax(-1) == batch.answer).float().tolist()
        counted = [True] * len(right) if fair is None else fair.tolist()
        for kind, value, counts in zip(batch.kind, right, counted, strict=True):
            if counts:
                self._right[kind].append(value)

    def shares(self) -> dict[str, float]:
        """From 0 to 1, by kind."""
        return {kind: float(np.mean(values)) for kind, values in sorted(self._right.items())}

    def text(self) -> str:
        """Overall and by kind, in percent; starts anew."""
        shares = " ".join(f"{kind} {100 * share:.0f}" for kind, share in self.shares().items())
        overall = np.mean([value for values in self._right.values() for value in values])
        self._right.clear()
        return f"{100 * overall:.1f} {shares}"
