"""Plain downsampling, a merger: average pooling of each grid to its share of K. The floor that has to be beaten.

Several published methods do not beat it (arXiv 2510.07143). A grid, which is a crop or the mosaic of all tiles, gets
its share of K by area, and is cut into exactly as many cells: lines of cells that are as near to squares as its aspect
allows, all of one size where the share fits the grid (24 x 24 to 144: cells of 2 x 2). A token goes into the cell that
its middle lies in, and what is fed is a cell's mean, at the place of the token in the cell's middle, which is the one
that `uniform` keeps. A grid whose share is zero is left out.
"""

from __future__ import annotations

import torch

from adafv import flops
from adafv.evidence import Evidence, Grid, Selection
from adafv.pruners import Pruner
from adafv.pruners.uniform import lines_of, middle, shares_by_area


def select(evidence: Evidence, keep: int) -> Selection:
    """Merge each image's tokens into `keep` cells."""
    device = evidence.saliency.device
    into = torch.full(evidence.valid.shape, -1)
    for row, grids in zip(into, evidence.grids, strict=True):
        places = [place for offset, grid, share in _shared(grids, keep) for place in _cells(offset, grid, share)]
        row[: len(places)] = torch.tensor(places)
    indices = [sorted({place for place in row if place >= 0}) for row in into.tolist()]
    return Selection(torch.tensor(indices, device=device), into=into.to(device))


def _shared(grids: tuple[Grid, ...], keep: int) -> list[tuple[int, Grid, int]]:
    """List where each grid begins, its shape and its share."""
    found, offset = [], 0
    for grid, share in zip(grids, shares_by_area(grids, keep), strict=True):
        found.append((offset, grid, share))
        offset += grid[0] * grid[1]
    return found


def _cells(offset: int, grid: Grid, share: int) -> list[int]:
    """Name for each token of a grid, row by row, the one that it goes into; -1 for none."""
    (rows, columns), lines, places = grid, lines_of(*grid, share), []
    if not lines:
        return [-1] * (rows * columns)
    for row in range(rows):
        line = (2 * row + 1) * len(lines) // (2 * rows)
        start, points = offset + middle(line, len(lines), rows) * columns, lines[line]
        for column in range(columns):
            point = (2 * column + 1) * points // (2 * columns)
            places.append(start + middle(point, points, columns))
    return places


PRUNER = Pruner(select, flops=lambda work: flops.merge(work.visual, work.hidden), by_image=True)
