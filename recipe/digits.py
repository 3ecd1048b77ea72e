"""The digits that are painted on signs, as seven bold strokes.

A sign's panel is about three by four patches big, so that a patch shows one or two strokes, or where one could be and
is not. To tell a digit from all others takes several of them: 8 and 9 differ in a single stroke.
"""

from __future__ import annotations

import numpy as np

from recipe.geometry import Points, box

STROKES = ("top", "upper right", "lower right", "bottom", "lower left", "upper left", "middle")
COUNT = len(STROKES)
MIRRORED = (0, 5, 4, 3, 2, 1, 6)  # the stroke at whose place each one is in a mirror
_LIT = ("012345", "12", "01346", "01236", "1256", "02356", "023456", "012", "0123456", "012356")
DIGITS = tuple(sum(1 << int(stroke) for stroke in lit) for lit in _LIT)  # bits of the strokes of 0 .. 9

# Where the panel is in the unit box of a sign with a number, and how thick its strokes are, by the sign's variant.
LEFT, RIGHT, TOP, BOTTOM = -0.31, 0.31, -0.425, 0.165
THICKNESS = {2: 0.17, 3: 0.135}  # of the width of the unit box; heights are scaled by SQUEEZE
SQUEEZE = 0.72  # about a sign's width over its height


def digit_of(strokes: int) -> int | None:
    """The digit that these strokes make, if any."""
    return DIGITS.index(strokes) if strokes in DIGITS else None


def templates() -> np.ndarray:
    """Strokes of every digit, (10, 7) bool."""
    return np.array([[bits >> stroke & 1 for stroke in range(COUNT)] for bits in DIGITS], dtype=bool)


def stroke_shapes(variant: int) -> tuple[Points, ...]:
    """Polygons of all seven strokes in the sign's unit box."""
    wide, high = THICKNESS[variant], THICKNESS[variant] * SQUEEZE
    middle = (TOP + BOTTOM) / 2
    return (
        box(LEFT, TOP, RIGHT, TOP + high),
        box(RIGHT - wide, TOP, RIGHT, middle),
        box(RIGHT - wide, middle, RIGHT, BOTTOM),
        box(LEFT, BOTTOM - high, RIGHT, BOTTOM),
        box(LEFT, middle, LEFT + wide, BOTTOM),
        box(LEFT, TOP, LEFT + wide, middle),
        box(LEFT, middle - high / 2, RIGHT, middle + high / 2),
    )
