"""An evenly spaced grid, the same for every question: what any clever pruner has to beat."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from adafv.evidence import Evidence, Grid, Selection
from adafv.pruners import Pruner


def select(evidence: Evidence, keep: int) -> Selection:
    """Keep `keep` evenly spaced tokens of each image: (B, keep) indices."""
    rows = [_spread(grids, keep) for grids in evidence.grids]
    return Selection(torch.tensor(rows, device=evidence.saliency.device))


def _spread(grids: tuple[Grid, ...], keep: int) -> list[int]:
    """Grids get shares by area, rounded so that they add up to `keep`."""
    chosen: list[int] = []
    offset, wanted = 0, 0.0
    area = sum(rows * columns for rows, columns in grids)
    for rows, columns in grids:
        wanted += keep * rows * columns / area
        share = round(wanted) - len(chosen)
        chosen += [offset + place for place in _points(rows, columns, share)]
        offset += rows * columns
    return chosen


def _points(rows: int, columns: int, count: int) -> list[int]:
    """Spread `count` distinct places over one grid: lines of points, as near to square cells as its aspect allows."""
    if not count:
        return []
    lines = min(rows, count, max(round(math.sqrt(count * rows / columns)), math.ceil(count / columns), 1))
    ends = [(2 * count * line + lines) // (2 * lines) for line in range(lines + 1)]
    return [
        _middle(line, lines, rows) * columns + _middle(point, points, columns)
        for line, points in enumerate(end - start for start, end in pairwise(ends))
        for point in range(points)
    ]


def _middle(index: int, parts: int, length: int) -> int:
    """Find the middle of the `index`-th of `parts` equal parts of `length` cells."""
    return (2 * index + 1) * length // (2 * parts)


PRUNER = Pruner(select)
