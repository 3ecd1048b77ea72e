"""Tiles that may be left out of an image: what lies under each in the thumbnail, and an image without some of them.

Crops are encoded one by one as if each were an image. What is put together of them is what the family's own packing
makes of all crops, without the tokens of those that are not there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch
from accelerate.utils import align_module_device
from torch import Tensor

from adafv.encoding import ImageEncoding, Part
from adafv.evidence import Grid
from adafv.families.geometry import Frame
from adafv.families.stages import Stages


class SkippingStages(Stages):
    """The stages of one loaded checkpoint whose images are a thumbnail and tiles, none of them interpolated.

    A family gives `_origin` and `_newline`.
    """

    @abstractmethod
    def _origin(self, crops: int, size: tuple[int, int]) -> Tensor:
        """Number the patch that each packed token of an image is, through all crops; -1 for row ends. On the CPU."""

    @abstractmethod
    def _newline(self) -> Tensor:
        """Get the (D,) embedding of a row end."""

    def crops(self, values: Tensor, *, keys: bool = False) -> list[ImageEncoding]:
        """Run vision tower and projector over (crops, 3, H, W) pixels, and encode each as an image of one crop."""
        features, saliency, found = self._vision_features(values)
        parts = [self._projector(features), features, saliency, *([found] if keys else [])]
        return [ImageEncoding.of_crop(self.side, *crop) for crop in zip(*parts, strict=True)]

    def under(self, size: tuple[int, int]) -> Tensor:
        """Tell which part of each patch of the thumbnail lies under each tile of an image of `size` (height, width).

        Returns:
            (tiles, P) float32 on the CPU.
        """
        thumbnail, *tiles = self.frames(size)
        patch, side = self._vision.patch_size, self.side
        across = [_parts(thumbnail, tile, 0, patch, side) for tile in tiles]
        down = [_parts(thumbnail, tile, 1, patch, side) for tile in tiles]
        return torch.stack([torch.outer(*pair).flatten() for pair in zip(down, across, strict=True)]).float()

    def assembled(self, size: tuple[int, int], parts: Mapping[int, ImageEncoding]) -> ImageEncoding:
        """Put the thumbnail and some tiles of an image of `size` (height, width) in the model's own order.

        Args:
            size: of the image as it was opened.
            parts: of `crops`, by the numbers of the crops that they are.

        Returns:
            Tiles that are not there leave no token behind, and no row end where nothing else is in the row.
        """
        plan, patches = self.plan(self.model.config, *size), self.side**2
        origin, numbers = self._origin(plan.crops, size), sorted(parts)
        places = _left(origin, patches, numbers) if len(numbers) < plan.crops else torch.arange(len(origin))
        chosen = origin[places]
        candidates = (chosen >= 0).nonzero()[:, 0]
        crop, cell = chosen[candidates] // patches, chosen[candidates] % patches
        rank = torch.zeros(plan.crops, dtype=torch.long)
        rank[numbers] = torch.arange(len(numbers))
        own = [parts[number] for number in numbers]
        home, rows = own[0].packed.device, rank[crop] * patches + cell
        fed = torch.full_like(chosen, len(own) * patches)  # behind the last patch is the row end
        fed[candidates] = rows
        with align_module_device(self.model.model):
            newline = self._newline().to(own[0].packed)[None]
        rows, fed, keyed = rows.to(home), fed.to(home), [part.keys for part in own if part.keys is not None]
        skipped = len(numbers) < plan.crops
        return ImageEncoding(
            packed=torch.cat([*(part.packed for part in own), newline])[fed],
            candidates=candidates.to(home),
            features=torch.cat([part.features for part in own])[rows],
            saliency=torch.cat([part.saliency for part in own])[rows],
            crop=rank[crop].to(home),
            cell=cell.to(home),
            crops=len(numbers),
            grids=(plan.grids[0], *_bands(crop, _rows(origin)[places][candidates])) if skipped else plan.grids,
            keys=torch.cat(keyed)[rows] if keyed else None,
            part=Part(tuple(numbers), plan.crops, plan.visual, plan.packed, places) if skipped else None,
        )


def _parts(thumbnail: Frame, tile: Frame, axis: int, patch: int, side: int) -> Tensor:
    """Tell which part of each of the thumbnail's `side` columns (axis 0) or rows (1) of patches a tile covers."""
    start, step = ((thumbnail.left, thumbnail.across), (thumbnail.top, thumbnail.down))[axis]
    edges = start + torch.arange(side + 1, dtype=torch.float64) * patch * step
    common = edges[1:].clamp(max=tile.seen[axis + 2]) - edges[:-1].clamp(min=tile.seen[axis])
    return common.clamp(min=0) / (patch * step)


def _rows(origin: Tensor) -> Tensor:
    """Number the mosaic's row of each packed token, a row's end its last; the thumbnail counts to the first."""
    ends = (origin < 0).long()
    return ends.cumsum(0) - ends


def _left(origin: Tensor, patches: int, numbers: Sequence[int]) -> Tensor:
    """List the packed places that are left where only crops of those `numbers` are there."""
    crop = origin.div(patches, rounding_mode="floor")  # -1 for a row end
    there, row = torch.isin(crop, torch.tensor(numbers)), _rows(origin)
    full = torch.zeros(int(row[-1]) + 1, dtype=torch.bool).index_fill_(0, row[there & (crop > 0)], True)
    return (there | ((crop < 0) & full[row])).nonzero()[:, 0]


def _bands(crop: Tensor, row: Tensor) -> Iterator[Grid]:
    """Tell the grids that the tiles' candidates make up: one for all rows of the same tiles that follow each other.

    Args:
        crop, row: (N,) of all candidates, the thumbnail's first.
    """
    tiles = crop > 0
    pieces = zip(row[tiles].tolist(), crop[tiles].tolist(), strict=True)
    lines = [[tile for _, tile in line] for _, line in groupby(pieces, key=lambda piece: piece[0])]
    for line, same in groupby(lines):
        yield len(list(same)), len(line)
