"""LLaVA-OneVision: an image is a thumbnail and a mosaic of up to 36 tiles, a large mosaic interpolated down.

What differs from transformers:
    - One image at a time, and no video.
    - Features and saliency go through the model's own packing beside the tokens, and are interpolated as these are.
    - A token of a mosaic that was interpolated comes from no single patch. Its `crop` and `cell` say which patch of
      which crop holds the token's middle; its box is the part of the mosaic that it stands for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaNextProcessor, LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.modeling_llava_onevision import get_anyres_image_grid_shape, unpad_image

from adafv.encoding import ImageEncoding, Pixels
from adafv.errors import CheckpointError
from adafv.evidence import Grid
from adafv.families import templates
from adafv.families.base import Family, ImagePlan
from adafv.families.geometry import Box, Frame
from adafv.families.llava_next import LlavaNextStages, per_tile
from adafv.families.tower import check_tower

_LARGEST_MOSAIC = re.compile(r"anyres_max_([1-9]\d{0,2})")
_TOLERANCE = 1.1  # a mosaic is interpolated where its side is this much too long


class LlavaOnevisionStages(LlavaNextStages):
    """The stages of one loaded LLaVA-OneVision checkpoint."""

    @staticmethod
    def plan(config: Any, height: int, width: int) -> ImagePlan:
        """Plan as LLaVA-NeXT does, the mosaic interpolated where it is larger than the configuration allows."""
        image = LlavaNextStages.plan(config, height, width)
        if len(image.grids) == 1:
            return image
        thumbnail, mosaic = image.grids
        rows, columns = _interpolated(config, mosaic)
        size, side = math.prod(thumbnail), thumbnail[0]
        image_size, resolutions = config.vision_config.image_size, config.image_grid_pinpoints
        tiles = get_anyres_image_grid_shape((height, width), resolutions, image_size)
        down, across = (
            per_tile([(count * side - whole) // 2 + middle for middle in _middles(left, whole)], side, count)
            for count, whole, left in zip(tiles, mosaic, (rows, columns), strict=True)
        )
        return replace(
            image,
            visual=size + rows * columns,
            newlines=rows,
            grids=(thumbnail, (rows, columns)),
            crop_sizes=(size, *(high * wide for high in down for wide in across)),
        )

    def boxes(self, size: tuple[int, int], encoding: ImageEncoding, padded: bool = False) -> list[Box | None]:
        """Place the tokens as all stages do; one of the mosaic shows the part that interpolation made it of."""
        thumbnail = super().boxes(size, encoding)[: self.side**2]
        if len(encoding.grids) == 1:
            return thumbnail
        frames, (tile_rows, tile_columns) = self.frames(size), self._tiles(size)
        across, down = frames[1 : 1 + tile_columns], frames[1::tile_columns]
        rows, columns = encoding.grids[1]
        whole_rows, whole_columns = self._unpadded(size).shape
        above, left = (tile_rows * self.side - whole_rows) // 2, (tile_columns * self.side - whole_columns) // 2
        horizontal = self._edges([(frame.left, frame.across) for frame in across], left, whole_columns, columns)
        vertical = self._edges([(frame.top, frame.down) for frame in down], above, whole_rows, rows)
        image = Frame.whole(size[1], size[0])
        mosaic = [image.clipped((x, y, right, bottom)) for y, bottom in vertical for x, right in horizontal]
        return thumbnail + mosaic

    def _edges(
        self, tiles: Sequence[tuple[float, float]], start: int, patches: int, tokens: int
    ) -> list[tuple[float, float]]:
        """Tell where each of `tokens` equal parts of `patches` begins and ends, in pixels of the image.

        Args:
            tiles: of the tiles side by side, where each begins in the image, and the image's pixels in one of its own.
            start: patches in front, which were unpadded.
            patches: that were interpolated.
            tokens: that were made of them.
        """
        side, patch = self.side, self._vision.patch_size
        edges = []
        for token in range(tokens):
            ends = []
            for place, is_end in ((token, 0), (token + 1, 1)):
                exact = start * tokens + place * patches  # in patches, times `tokens`
                tile = (exact - is_end) // (side * tokens)  # where two tiles meet, each side is its own tile's
                begin, scale = tiles[tile]
                ends.append(begin + (exact / tokens - tile * side) * patch * scale)
            edges.append((ends[0], ends[1]))
        return edges

    def _tiles(self, size: tuple[int, int]) -> Grid:
        """Rows and columns of tiles in the mosaic of an image of `size` (height, width)."""
        config = self.model.config
        rows, columns = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
        return rows, columns

    def _unpadded(self, size: tuple[int, int]) -> Tensor:
        """Number the patches of the unpadded mosaic, counted through all tiles: (rows, columns) int64."""
        (rows, columns), side = self._tiles(size), self.side
        tiles = torch.arange(rows * columns * side**2).view(rows, columns, side, side)
        mosaic = tiles.permute(0, 2, 1, 3).reshape(1, rows * side, columns * side)
        return torch.as_tensor(unpad_image(mosaic, size)[0])

    def _pack(
        self, pixels: Pixels, tokens: Tensor, features: Tensor, saliency: Tensor, keys: Tensor | None
    ) -> ImageEncoding:
        crops, patches = saliency.shape
        plan = self.plan(self.model.config, *pixels.size)
        origin = torch.arange(patches)
        candidates, rest = origin, torch.arange(patches, plan.packed)
        if len(plan.grids) > 1:
            rows, columns = plan.grids[1]
            candidates = torch.cat([origin, rest.view(rows, columns + 1)[:, :-1].flatten()])  # a row ends in a newline
            middles = _at_middles(self._unpadded(pixels.size), rows, columns)
            origin = torch.cat([origin, patches + middles.flatten()])
        home = tokens.device
        return ImageEncoding(
            packed=self._packing(tokens, pixels.size, self.model.model.image_newline),
            candidates=candidates.to(home),
            features=self._packing(features, pixels.size, None),
            saliency=self._packing(saliency[..., None], pixels.size, None)[:, 0],
            crop=(origin // patches).to(home),
            cell=(origin % patches).to(home),
            crops=crops,
            grids=plan.grids,
            keys=None if keys is None else self._packing(keys, pixels.size, None),
        )

    def _packing(self, tokens: Tensor, size: tuple[int, int], newline: Tensor | None) -> Tensor:
        config = self.model.config
        packed, _ = self.model.model.pack_image_features(
            [tokens], [size], image_newline=newline, vision_aspect_ratio=config.vision_aspect_ratio
        )
        return torch.as_tensor(packed[0])


def _interpolated(config: Any, mosaic: Grid) -> Grid:
    """Rows and columns that are left of an unpadded mosaic."""
    rows, columns = mosaic
    side = config.vision_config.image_size // config.vision_config.patch_size
    ratio = math.sqrt(rows * columns / (_largest(config) * side**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > _TOLERANCE else mosaic


def _at_middles(grid: Tensor, rows: int, columns: int) -> Tensor:
    """Take the entry of `grid` under the middle of each cell of a coarser grid laid over it: (rows, columns)."""
    down, across = (torch.tensor(_middles(*parts)) for parts in zip((rows, columns), grid.shape, strict=True))
    return grid[down[:, None], across]


def _middles(parts: int, whole: int) -> list[int]:
    """Tell under which of `whole` places the middle of each of as many equal `parts` lies."""
    return [(2 * part + 1) * whole // (2 * parts) for part in range(parts)]


def _largest(config: Any) -> int:
    """Crops that the tokens of a mosaic may amount to."""
    found = _LARGEST_MOSAIC.fullmatch(config.vision_aspect_ratio)
    if found is None:
        what = f"vision_aspect_ratio {config.vision_aspect_ratio[:60]!r} is not of the form 'anyres_max_9'"
        raise CheckpointError(what, "the checkpoint's config.json is wrong: fetch it again")
    return int(found[1])


def _check(name: str, config: Any) -> None:
    """Refuse what `check_tower` refuses, and a size of mosaics that cannot be read."""
    check_tower(name, config)
    try:
        _largest(config)
    except CheckpointError as error:
        raise CheckpointError(f"model: {name}: config.json: {error.what}", error.fix) from error


LLAVA_ONEVISION = Family(
    model_type="llava_onevision",
    name="LLaVA-OneVision",
    stages=LlavaOnevisionStages,
    processor=LlavaNextProcessor,  # its own has a part for videos, which needs torchvision
    image_processor=LlavaOnevisionImageProcessorPil,
    check=_check,
    template=templates.llava_onevision,
    own_tensors=("image_newline",),
    in_parts=True,
)
