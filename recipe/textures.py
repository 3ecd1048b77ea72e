"""Textures of the hard world: how much of a second tone each pixel gets, for grounds, skies and things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from recipe.scenes import Pattern

Field = NDArray[np.floating[Any]]


def field(pattern: Pattern, width: int, height: int, side: int) -> Field:
    """Values from 0 to 1, shape (height, width), of a picture that is `side` pixels wide."""
    rng = np.random.default_rng([pattern.seed, 2])
    if pattern.style == "blades":
        return _blades(pattern, width, height, side, rng)
    if pattern.style == "noise":
        return _noise(pattern, width, height, side, rng)
    a = np.deg2rad(pattern.angle)
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    period = max(2.0, pattern.size * side)
    u = (x * np.float32(np.cos(a)) + y * np.float32(np.sin(a))) / period + np.float32(rng.random())
    v = (y * np.float32(np.cos(a)) - x * np.float32(np.sin(a))) / period + np.float32(rng.random())
    return _WAVES[pattern.style](u, v).astype(np.float32)


def _stripes(u: Field, v: Field) -> Field:
    return (u % 1 < 0.5).astype(np.float32)


def _checks(u: Field, v: Field) -> Field:
    return ((np.floor(u * 2) + np.floor(v * 2)) % 2).astype(np.float32)


def _bricks(u: Field, v: Field) -> Field:
    """Mortar is 1; every other row is shifted by half a brick, and rows differ a little."""
    row = np.floor(v * 2)
    along = (u + 0.5 * (row % 2)) % 1
    mortar = (v * 2 % 1 < 0.16) | (along < 0.08)
    brick = np.floor(u + 0.5 * (row % 2))
    tone = (np.sin(brick * 12.9898 + row * 78.233) * 43758.5453) % 1
    result: Field = np.where(mortar, 1.0, 0.45 * tone).astype(np.float32)
    return result


def _dots(u: Field, v: Field) -> Field:
    inside: Field = ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.09).astype(np.float32)
    return inside


def _ripples(u: Field, v: Field) -> Field:
    bend = 0.22 * np.sin(2.1 * u) + 0.12 * np.sin(5.3 * u + 1)
    wave: Field = (0.5 + 0.5 * np.sin(6.283 * (v + bend))).astype(np.float32)
    return wave


def _gradient(u: Field, v: Field) -> Field:
    return (0.5 + 0.5 * np.cos(np.float32(6.283) * u + 0 * v)).astype(np.float32)


def _noise(pattern: Pattern, width: int, height: int, side: int, rng: np.random.Generator) -> Field:
    """Blotches of two sizes and grains."""
    total = np.zeros((height, width), dtype=np.float32)
    for share, size in ((0.5, pattern.size), (0.3, pattern.size / 3), (0.2, pattern.size / 8)):
        cells = max(2, round(width / side / size)), max(2, round(height / side / size))
        values = Image.fromarray(rng.random((cells[1], cells[0]), dtype=np.float32))
        total += share * np.asarray(values.resize((width, height), Image.Resampling.BILINEAR))
    contrasted: Field = np.clip((total - 0.5) * 2.2 + 0.5, 0, 1)
    return contrasted


def _blades(pattern: Pattern, width: int, height: int, side: int, rng: np.random.Generator) -> Field:
    """Short strokes, mostly upright."""
    canvas = Image.new("L", (width, height), 90)
    draw = ImageDraw.Draw(canvas)
    length = pattern.size * side
    count = min(700, int(1.6 * width * height / length**2 * 4))
    places = rng.random((count, 2)) * (width, height)
    leans, grows = rng.normal(0, 0.35, count), rng.uniform(0.5, 1.2, count)
    tones = rng.integers(0, 256, count)
    for (x, y), lean, grow, tone in zip(places.tolist(), leans.tolist(), grows.tolist(), tones.tolist(), strict=True):
        tip = (x + lean * length * grow, y - length * grow)
        draw.line([(x, y), tip], fill=tone, width=max(1, side // 150))
    return np.asarray(canvas, dtype=np.float32) / 255


_WAVES: dict[str, Callable[[Field, Field], Field]] = {
    "stripes": _stripes,
    "checks": _checks,
    "bricks": _bricks,
    "dots": _dots,
    "ripples": _ripples,
    "gradient": _gradient,
}
STYLES = (*_WAVES, "noise", "blades")
