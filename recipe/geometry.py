"""Outlines that shapes are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, n: int = 28) -> Points:
    """Points of an ellipse, shape (n, 2); `tilt` in degrees."""
    turn = np.linspace(0.0, 2 * np.pi, n, endpoint=False)
    px, py, a = rx * np.cos(turn), ry * np.sin(turn), np.deg2rad(tilt)
    return np.stack([x + px * np.cos(a) - py * np.sin(a), y + px * np.sin(a) + py * np.cos(a)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Points of an upright rectangle, shape (4, 2)."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def poly(*points: tuple[float, float]) -> Points:
    """Points of a polygon, shape (n, 2)."""
    return np.array(points)


def rounded(x0: float, y0: float, x1: float, y1: float, r: float) -> Points:
    """Points of a rectangle with round corners."""
    centres = ((x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180), (x1 - r, y0 + r, 270))
    corners = []
    for x, y, start in centres:
        turn = np.deg2rad(np.linspace(start, start + 90, 7))
        corners.append(np.stack([x + r * np.cos(turn), y + r * np.sin(turn)], axis=1))
    points: Points = np.concatenate(corners)
    return points


def arc(x: float, y: float, r: float, width: float, start: float, stop: float, n: int = 14) -> Points:
    """A thick circular arc between two angles in degrees (0 is right, 90 is down)."""
    turn = np.deg2rad(np.linspace(start, stop, n))
    rim = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points: Points = np.concatenate([rim * (r + width / 2), rim[::-1] * (r - width / 2)]) + np.array([x, y])
    return points
