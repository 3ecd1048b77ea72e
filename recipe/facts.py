"""What questions know of a scene: its things as classes, colours, places, areas and the digits on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipe.digits import digit_of
from recipe.names import CLASSES


@dataclass(frozen=True)
class Fact:
    """One thing as questions see it."""

    number: int
    kind: int
    colour: int
    x: float
    y: float
    area: float
    digit: int | None = None  # painted on it

    @property
    def name(self) -> str:
        """Name of its class."""
        return CLASSES[self.kind]


def facts_of(things: NDArray[np.float32]) -> list[Fact]:
    """Stored things (n, 6), as `dataset.labels` makes them, -> facts."""
    return [
        Fact(number, int(kind), int(colour), x, y, area, digit_of(int(strokes)))
        for number, (kind, colour, x, y, area, strokes) in enumerate(things.tolist())
        if kind >= 0
    ]
