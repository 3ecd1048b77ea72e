"""Which tiles of an image are worth encoding, told from its thumbnail alone: `--tiles N` and `auto`. A rule of our own.

The thumbnail shows the whole image, so whatever lies in a tile lies under it in the thumbnail, too. For one image with
m tiles and one question, with saliency s_i and text-to-image similarity t_i of the thumbnail's patches, and the part
u_ki of patch i that lies under tile k:

    S_k = sum_i(u_ki s_i), T_k = sum_i(u_ki t_i), either divided by its sum over all tiles
    e_k = (S_k + T_k) / 2                                               # the evidence: shares that add up to one
    N takes the N tiles with the largest e_k, of equals the first; auto takes those with e_k >= 1 / m

Every tile costs the tower the same, one in m of what all cost. So `auto` encodes a tile where that holds at least as
large a share of the evidence as of the cost: the best tile always, and all of them where the evidence is spread evenly,
which says nothing. A signal that is spread evenly adds the same to each tile, so that the other one decides; and where
either points at a tile of its own, both are taken, which a product would not do. There is no threshold to choose, and
the budget has no say: which tiles are looked at is a matter of image and question. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALL, AUTO = "all", "auto"
_DIGITS = 6  # of a share that are more than rounding, in float32: what differs behind them is equal


@dataclass(frozen=True)
class Ranked:
    """The tiles of an image, by what the thumbnail tells of them under one question.

    Args:
        order: numbers of the crops that they are, best first; a tile of nothing but padding is not among them.
        enough: how many of them `auto` takes.
    """

    order: tuple[int, ...]
    enough: int

    def wanted(self, tiles: str) -> tuple[int, ...]:
        """List the crops to encode, ascending, the thumbnail among them, for `auto` or a number of tiles."""
        count = self.enough if tiles == AUTO else int(tiles)
        return (0, *sorted(self.order[:count]))


def looks(tiles: str, count: int) -> bool:
    """Tell whether an image of `count` tiles is looked at first, rather than encoded as a whole."""
    return count > 0 and tiles != ALL and (tiles == AUTO or int(tiles) < count)


def held(saliency: Tensor, relevance: Tensor, under: Tensor) -> Tensor:
    """Sum up what of either signal lies under each tile.

    Args:
        saliency, relevance: (P,), of the thumbnail's patches; not negative.
        under: (m, P), the part of each patch that lies under each tile.

    Returns:
        (2, m) float32.
    """
    return torch.stack((saliency, relevance)).float() @ under.to(saliency.device, torch.float32).T


def rank(saliency: Sequence[float], relevance: Sequence[float], numbers: Sequence[int]) -> Ranked:
    """Rank tiles by what they hold of either signal, as of `held`.

    Args:
        saliency, relevance: of each tile.
        numbers: of the crops that they are, ascending.
    """
    evidence = [sum(pair) / 2 for pair in zip(_shares(saliency), _shares(relevance), strict=True)]
    places = sorted(range(len(numbers)), key=lambda place: (-round(evidence[place], _DIGITS), place))
    enough = sum(round(share * len(numbers), _DIGITS) >= 1 for share in evidence)
    return Ranked(tuple(numbers[place] for place in places), enough)


def _shares(values: Sequence[float]) -> list[float]:
    """Divide values by their sum; where that is nothing, all are alike."""
    whole = sum(values)
    return [value / whole if whole > 0 else 1 / len(values) for value in values]
