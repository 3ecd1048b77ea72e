"""An evenly spaced grid, the same for every question: what any clever pruner has to beat."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import torch

from adafv.evidence import Evidence, Grid, Selection
from adafv.pruners import Pruner


def select(evidence: Evidence, keep: int) -> Selection:
    """Keep `keep` evenly spaced tokens of each image: (B, keep) indices."""
    rows = [_spread(grids, keep) for grids in evidence.grids]
    return Selection(torch.tensor(rows, device=evidence.saliency.device))


def _spread(grids: tuple[Grid, ...], keep: int) -> list[int]:
    chosen: list[int] = []
    offset = 0
    for (rows, columns), share in zip(grids, shares_by_area(grids, keep), strict=True):
        chosen += [offset + place for place in _points(rows, columns, share)]
        offset += rows * columns
    return chosen


def shares_by_area(grids: tuple[Grid, ...], keep: int) -> list[int]:
    """Give grids shares by area, rounded so that they add up to `keep`."""
    areas = [rows * columns for rows, columns in grids]
    ends = [0, *(round(keep * end / sum(areas)) for end in accumulate(areas))]
    return [end - start for start, end in pairwise(ends)]


def lines_of(rows: int, columns: int, count: int) -> list[int]:
    """Cut a grid into `count` parts in lines, as near to squares as its aspect allows: how many there are in each."""
    if not count:
        return []
    lines = min(rows, count, max(round(math.sqrt(count * rows / columns)), math.ceil(count / columns), 1))
    ends = [(2 * count * line + lines) // (2 * lines) for line in range(lines + 1)]
    return [end - start for start, end in pairwise(ends)]


def _points(rows: int, columns: int, count: int) -> list[int]:
    """Spread `count` distinct places over one grid: the middles of its parts."""
    lines = lines_of(rows, columns, count)
    return [
        middle(line, len(lines), rows) * columns + middle(point, points, columns)
        for line, points in enumerate(lines)
        for point in range(points)
    ]


def middle(index: int, parts: int, length: int) -> int:
    """Find the middle of the `index`-th of `parts` equal parts of `length` cells."""
    return (2 * index + 1) * length // (2 * parts)


PRUNER = Pruner(select, by_image=True)
