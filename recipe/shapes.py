"""The twelve things that a demo scene can show, as polygons.

A shape is a list of parts in its own unit box: x to the right, y down, both within [-0.5, 0.5]. Everything is a
polygon, so that a thing can be mirrored, tilted and stretched by one matrix and drawn at any resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from recipe.geometry import Points, arc, box, ellipse, poly, rounded

NUMBERED = 2  # variants of a sign from here on have a plate that is big enough for a digit
GLASS, WOOD, DARK, STEEL, LEAF = "#cfe8f3", "#7a4f2e", "#2b2b33", "#8d929b", "#3f8f46"


@dataclass(frozen=True)
class Part:
    """One polygon. `paint`: "body", "shade", "light", "accent" (shades of the thing's own colour) or "#rrggbb"."""

    paint: str
    points: Points  # (n, 2)
    outlined: bool = False


def _car(_: int) -> list[Part]:
    hull = poly(
        (-0.5, 0.02),
        (-0.46, -0.06),
        (-0.3, -0.09),
        (-0.18, -0.28),
        (0.16, -0.28),
        (0.3, -0.09),
        (0.45, -0.05),
        (0.5, 0.03),
        (0.5, 0.17),
        (-0.5, 0.17),
    )
    parts = [
        Part("body", hull, True),
        Part("shade", box(-0.5, 0.1, 0.5, 0.17)),
        Part(GLASS, poly((-0.23, -0.09), (-0.14, -0.23), (-0.025, -0.23), (-0.025, -0.09))),
        Part(GLASS, poly((0.025, -0.09), (0.025, -0.23), (0.135, -0.23), (0.22, -0.09))),
        Part("#ffe9a8", ellipse(0.46, 0.02, 0.03, 0.035)),
    ]
    for x in (-0.28, 0.28):
        parts += [Part(DARK, ellipse(x, 0.17, 0.115, 0.115)), Part("#c9ccd3", ellipse(x, 0.17, 0.055, 0.055))]
    return parts


def _tree(variant: int) -> list[Part]:
    trunk = Part(WOOD, poly((-0.05, 0.1), (0.05, 0.1), (0.075, 0.5), (-0.075, 0.5)), True)
    if variant:
        tiers = [(-0.5, -0.14, 0.2), (-0.32, 0.08, 0.28), (-0.12, 0.3, 0.35)]
        return [trunk] + [
            Part(paint, poly((0.0, top), (half, low), (-half, low)), True)
            for paint, (top, low, half) in zip(("body", "body", "body"), reversed(tiers), strict=True)
        ]
    return [
        trunk,
        Part("body", ellipse(-0.18, 0.0, 0.21, 0.19), True),
        Part("body", ellipse(0.18, 0.0, 0.21, 0.19), True),
        Part("body", ellipse(0.0, -0.22, 0.27, 0.27), True),
        Part("body", ellipse(0.0, 0.05, 0.22, 0.18), True),
        Part("shade", ellipse(0.1, 0.06, 0.17, 0.08, -12)),
        Part("light", ellipse(-0.1, -0.3, 0.1, 0.08, -25)),
    ]


def _house(_: int) -> list[Part]:
    return [
        Part("#84574a", box(0.18, -0.44, 0.28, -0.15), True),
        Part("body", box(-0.38, -0.1, 0.38, 0.45), True),
        Part("shade", box(-0.38, -0.1, 0.38, -0.03)),
        Part("#6f4a40", poly((-0.5, -0.08), (0.0, -0.47), (0.5, -0.08)), True),
        Part("#5b3b2a", box(-0.07, 0.14, 0.1, 0.45)),
        Part("#f2d28b", ellipse(0.065, 0.31, 0.018, 0.018, n=10)),
        Part(GLASS, box(-0.3, 0.08, -0.14, 0.25)),
        Part(GLASS, box(0.16, 0.08, 0.31, 0.25)),
        Part("#f4f1ea", box(-0.23, 0.08, -0.21, 0.25)),
        Part("#f4f1ea", box(0.225, 0.08, 0.245, 0.25)),
    ]


def _sign(variant: int) -> list[Part]:
    if variant >= NUMBERED:
        plate = box(-0.36, -0.5, 0.36, 0.24) if variant == NUMBERED else rounded(-0.36, -0.5, 0.36, 0.24, 0.1)
        return [Part(STEEL, box(-0.045, 0.1, 0.045, 0.5), True), Part("body", plate, True)]
    pole = Part(STEEL, box(-0.035, -0.1, 0.035, 0.5), True)
    if variant:
        plate, bars = box(-0.36, -0.46, 0.36, 0.02), [box(-0.24, -0.33, 0.24, -0.27), box(-0.24, -0.19, 0.1, -0.13)]
    else:
        plate, bars = ellipse(0.0, -0.2, 0.31, 0.31, 22.5, 8), [box(-0.18, -0.235, 0.18, -0.165)]
    return [pole, Part("body", plate, True)] + [Part("accent", bar) for bar in bars]


def _ball(_: int) -> list[Part]:
    return [
        Part("body", ellipse(0.0, 0.0, 0.48, 0.48), True),
        Part("shade", ellipse(0.1, 0.28, 0.28, 0.13, -22)),
        Part("accent", arc(0.3, -0.62, 0.72, 0.075, 88, 148)),
        Part("light", ellipse(-0.22, -0.22, 0.1, 0.07, -40)),
    ]


def _boat(_: int) -> list[Part]:
    return [
        Part(WOOD, box(-0.025, -0.5, 0.025, 0.18), True),
        Part("body", poly((0.06, -0.46), (0.44, 0.07), (0.06, 0.07)), True),
        Part("light", poly((-0.06, -0.34), (-0.06, 0.07), (-0.33, 0.07)), True),
        Part("body", poly((-0.5, 0.15), (0.5, 0.15), (0.36, 0.44), (-0.34, 0.44)), True),
        Part("accent", poly((-0.465, 0.22), (0.465, 0.22), (0.44, 0.27), (-0.44, 0.27))),
        Part("shade", poly((-0.38, 0.38), (0.39, 0.38), (0.36, 0.44), (-0.34, 0.44))),
    ]


def _bird(_: int) -> list[Part]:
    return [
        Part("#f2a33a", poly((0.35, -0.17), (0.5, -0.11), (0.35, -0.05)), True),
        Part("body", poly((-0.2, 0.0), (-0.5, -0.16), (-0.42, 0.0), (-0.5, 0.14), (-0.18, 0.2)), True),
        Part("body", ellipse(0.0, 0.07, 0.31, 0.21, -8), True),
        Part("body", ellipse(0.24, -0.12, 0.16, 0.155), True),
        Part("light", ellipse(0.12, 0.14, 0.14, 0.1, -20)),
        Part("shade", poly((0.1, -0.02), (-0.3, -0.22), (-0.24, 0.08), (-0.02, 0.16))),
        Part("#ffffff", ellipse(0.28, -0.15, 0.05, 0.05, n=14)),
        Part(DARK, ellipse(0.29, -0.15, 0.026, 0.026, n=10)),
    ]


def _flower(_: int) -> list[Part]:
    petals = []
    for turn in np.deg2rad(np.arange(0, 360, 60)):
        x, y = 0.19 * np.cos(turn), -0.18 + 0.19 * np.sin(turn)
        petals.append(Part("body", ellipse(x, y, 0.15, 0.11, float(np.rad2deg(turn)), 20), True))
    return [
        Part(LEAF, box(-0.03, 0.0, 0.03, 0.5), True),
        Part(LEAF, ellipse(0.12, 0.32, 0.13, 0.05, -30), True),
        *petals,
        Part("#6d4326", ellipse(0.0, -0.18, 0.1, 0.1)),
    ]


def _cat(_: int) -> list[Part]:
    parts = [
        Part("body", arc(0.22, 0.2, 0.2, 0.09, -60, 95), True),
        Part("body", ellipse(0.0, 0.24, 0.26, 0.25), True),
        Part("light", ellipse(0.0, 0.28, 0.12, 0.16)),
        Part("body", poly((-0.24, -0.2), (-0.22, -0.48), (-0.03, -0.32)), True),
        Part("body", poly((0.24, -0.2), (0.22, -0.48), (0.03, -0.32)), True),
        Part("body", ellipse(0.0, -0.15, 0.26, 0.21), True),
        Part("#e79aa0", poly((-0.035, -0.1), (0.035, -0.1), (0.0, -0.06))),
    ]
    for x in (-0.1, 0.1):
        parts += [
            Part("#d9e86a", ellipse(x, -0.18, 0.05, 0.045, n=16)),
            Part(DARK, ellipse(x, -0.18, 0.018, 0.04, n=10)),
        ]
    return parts


def _fish(_: int) -> list[Part]:
    return [
        Part("body", poly((0.2, 0.0), (0.5, -0.22), (0.43, 0.0), (0.5, 0.22)), True),
        Part("shade", poly((-0.12, -0.17), (0.06, -0.3), (0.14, -0.13)), True),
        Part("body", ellipse(-0.1, 0.0, 0.38, 0.22), True),
        Part("light", ellipse(-0.12, 0.1, 0.24, 0.08)),
        Part("shade", arc(-0.32, 0.0, 0.15, 0.03, -55, 55)),
        Part("shade", poly((-0.04, 0.02), (0.13, -0.04), (0.1, 0.1))),
        Part("#ffffff", ellipse(-0.32, -0.05, 0.055, 0.055, n=14)),
        Part(DARK, ellipse(-0.33, -0.05, 0.028, 0.028, n=10)),
    ]


def _kite(_: int) -> list[Part]:
    return [
        Part(
            "#6b6b75",
            poly(
                (-0.01, 0.2), (0.05, 0.3), (0.03, 0.4), (0.1, 0.5), (0.12, 0.49), (0.06, 0.4), (0.08, 0.3), (0.02, 0.2)
            ),
        ),
        Part("body", poly((0.0, -0.5), (0.32, -0.12), (0.0, 0.26), (-0.32, -0.12)), True),
        Part("shade", poly((0.0, -0.5), (0.32, -0.12), (0.0, -0.12))),
        Part("shade", poly((0.0, -0.12), (0.0, 0.26), (-0.32, -0.12))),
        Part(
            "body", poly((-0.03, 0.28), (0.065, 0.32), (0.14, 0.28), (0.14, 0.38), (0.065, 0.34), (-0.03, 0.38)), True
        ),
    ]


def _cup(_: int) -> list[Part]:
    return [
        Part("body", arc(0.24, 0.02, 0.17, 0.09, -100, 100), True),
        Part("body", poly((-0.36, -0.33), (0.28, -0.33), (0.21, 0.4), (-0.29, 0.4)), True),
        Part("light", poly((-0.28, -0.2), (-0.18, -0.2), (-0.15, 0.3), (-0.23, 0.3))),
        Part("accent", poly((-0.348, -0.02), (0.25, -0.02), (0.243, 0.05), (-0.342, 0.05))),
        Part("shade", ellipse(-0.04, -0.33, 0.32, 0.075), True),
    ]


_SHAPES: dict[str, Callable[[int], list[Part]]] = {
    "car": _car,
    "tree": _tree,
    "house": _house,
    "sign": _sign,
    "ball": _ball,
    "boat": _boat,
    "bird": _bird,
    "flower": _flower,
    "cat": _cat,
    "fish": _fish,
    "kite": _kite,
    "cup": _cup,
}


@cache
def parts_of(kind: str, variant: int) -> tuple[Part, ...]:
    """Parts of one class in drawing order, scaled so that its bounding box is exactly [-0.5, 0.5] x [-0.5, 0.5]."""
    parts = _SHAPES[kind](variant)
    everything = np.concatenate([part.points for part in parts])
    low, high = everything.min(axis=0), everything.max(axis=0)
    centre, extent = (low + high) / 2, high - low
    return tuple(Part(part.paint, (part.points - centre) / extent, part.outlined) for part in parts)
