"""Clutter of the hard world: shapes in the things' colours that are none of the classes."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from recipe.geometry import Points, ellipse
from recipe.names import RGB
from recipe.scenes import Backdrop, Rgb

Rng = np.random.Generator


def draw_clutter(draw: ImageDraw.ImageDraw, backdrop: Backdrop, side: int) -> None:
    """Blobs, scribbles, leaves, stars, crosses and rings at random places."""
    rng = np.random.default_rng([backdrop.seed, 3])
    tones = list(RGB.values())
    for _ in range(backdrop.clutter):
        tone = _near(rng, tones[int(rng.integers(len(tones)))])
        middle, size = rng.uniform(0.02, 0.98, 2), float(rng.uniform(0.014, 0.05))
        kind = int(rng.integers(6))
        if kind == 0:
            _scribble(draw, rng, tone, middle * side, size * side)
        elif kind == 1:
            x, y = (middle * side).tolist()
            r = size * side * 0.8
            draw.ellipse([x - r, y - r, x + r, y + r], outline=tone, width=max(2, side // 110))
        else:
            points = (_blob, _leaf, _star, _cross)[kind - 2](rng)
            turn = rng.uniform(0, 6.283)
            matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * size
            draw.polygon([(float(x), float(y)) for x, y in (points @ matrix + middle) * side], fill=tone)


def _near(rng: Rng, tone: Rgb) -> Rgb:
    red, green, blue = np.clip(np.array(tone) * rng.uniform(0.8, 1.1) + rng.integers(-18, 19, 3), 0, 255).astype(int)
    return int(red), int(green), int(blue)


def _scribble(draw: ImageDraw.ImageDraw, rng: Rng, tone: Rgb, middle: Points, size: float) -> None:
    steps = np.cumsum(rng.normal(0, 0.7 * size, (int(rng.integers(4, 9)), 2)), axis=0) + middle
    width = max(2, int(size * 0.22))
    draw.line([(float(x), float(y)) for x, y in steps], fill=tone, width=width, joint="curve")


def _blob(rng: Rng) -> Points:
    """A closed wobbly line, clearly not round."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    a, b = rng.uniform(0, 6.283, 2)
    radius = 0.75 + 0.28 * np.sin(2 * turn + a) + 0.22 * np.sin(3 * turn + b)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)


def _leaf(rng: Rng) -> Points:
    half = np.linspace(-1, 1, 10)
    bow = float(rng.uniform(0.25, 0.45)) * (1 - half**2)
    return np.concatenate([np.stack([half, bow], axis=1), np.stack([half[::-1], -bow], axis=1)])


def _star(rng: Rng) -> Points:
    tips = int(rng.integers(4, 7))
    points = ellipse(0, 0, 1, 1, n=2 * tips)
    points[1::2] *= 0.42
    return points


def _cross(_: Rng) -> Points:
    arm, end = 0.28, 0.95
    quarter = [(arm, end), (arm, arm), (end, arm)]
    points = [(x * sx, y * sy) for sx, sy in ((1, 1), (1, -1), (-1, -1), (-1, 1)) for x, y in _ordered(quarter, sx, sy)]
    return np.array(points)


def _ordered(points: list[tuple[float, float]], sx: int, sy: int) -> list[tuple[float, float]]:
    return points if sx == sy else points[::-1]
