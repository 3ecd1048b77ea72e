"""LLaVA-NeXT: an image is a thumbnail and a mosaic of tiles.

What differs from transformers:
    - One image at a time, so crops are never padded to the batch's largest number.
    - The index of each patch goes through the model's own packing beside the features: what comes out says which
      patch of which crop each packed token is, whatever mosaic order and unpadding did. Newlines come out as -1.
    - The image processor cuts by the model's list of resolutions, which is the one that packing goes by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from adafv.encoding import ImageEncoding, Pixels
from adafv.families import templates
from adafv.families.base import Family, ImagePlan
from adafv.families.geometry import Frame, thumbnail_and_tiles
from adafv.families.skipping import SkippingStages
from adafv.families.stages import Stages
from adafv.families.tower import check_tower


class LlavaNextStages(Stages):
    """The stages of one loaded LLaVA-NeXT checkpoint."""

    @staticmethod
    def plan(config: Any, height: int, width: int) -> ImagePlan:
        """Thumbnail and tiles, by transformers' own choice of a mosaic and its own unpadding."""
        image, size, resolutions = config.vision_config.image_size, (height, width), config.image_grid_pinpoints
        side = image // config.vision_config.patch_size
        tile_rows, tile_columns = get_anyres_image_grid_shape(size, resolutions, image)
        # A tensor that has a shape and no content, since unpadding is written for tensors.
        tiles = torch.empty(1, tile_rows * side, tile_columns * side, device="meta")
        rows, columns = unpad_image(tiles, size).shape[1:]
        thumbnail = (side, side)
        down, across = (
            per_tile(range((tiles * side - length) // 2, (tiles * side + length) // 2), side, tiles)
            for tiles, length in ((tile_rows, rows), (tile_columns, columns))
        )
        return ImagePlan(
            crops=int(image_size_to_num_patches(size, resolutions, image)),
            visual=side**2 + rows * columns,
            newlines=rows,
            # Unpadding leaves no column of a strip that is thin enough, or no row.
            grids=(thumbnail, (rows, columns)) if rows * columns else (thumbnail,),
            crop_sizes=(side**2, *(high * wide for high in down for wide in across)),
        )

    @property
    def _processing(self) -> dict[str, Any]:
        if not hasattr(self._processor.image_processor, "image_grid_pinpoints"):
            return {}  # not one for this family: the number of crops will tell
        return {"image_grid_pinpoints": self.model.config.image_grid_pinpoints}

    def frames(self, size: tuple[int, int], padded: bool = False) -> list[Frame]:
        """Tell where the thumbnail and the tiles of an image of `size` (height, width) lie in it."""
        height, width = size
        images, resolutions = self._processor.image_processor, self.model.config.image_grid_pinpoints
        return thumbnail_and_tiles(width, height, images, resolutions)

    def _pack(
        self, pixels: Pixels, tokens: Tensor, features: Tensor, saliency: Tensor, keys: Tensor | None
    ) -> ImageEncoding:
        crops, patches = saliency.shape
        packed = self._packing(tokens, pixels.size, self.model.model.image_newline)
        origin = self._origin(crops, pixels.size)
        candidates = (origin >= 0).nonzero()[:, 0]
        chosen = origin[candidates]
        return ImageEncoding(
            packed=packed,
            candidates=candidates,
            features=features.flatten(0, 1)[chosen],
            saliency=saliency.flatten()[chosen],
            crop=chosen // patches,
            cell=chosen % patches,
            crops=crops,
            grids=self.plan(self.model.config, *pixels.size).grids,
            keys=None if keys is None else keys.flatten(0, 1)[chosen],
        )

    def _origin(self, crops: int, size: tuple[int, int]) -> Tensor:
        """Number the patch that each packed token of an image of `size` is, through all crops; -1 for newlines."""
        # On the CPU: not every device has float64, and asking where newlines are would wait for the device.
        origin = torch.arange(crops * self.side**2, dtype=torch.float64).view(crops, -1, 1)
        return self._packing(origin, size, origin.new_full((1,), -1.0))[:, 0].long()

    def _packing(self, tokens: Tensor, size: tuple[int, int], newline: Tensor | None) -> Tensor:
        """Run the model's own packing of one image: (crops, P, D) to (packed, D)."""
        packed, _ = self.model.model.pack_image_features(
            [tokens],
            [size],
            vision_feature_select_strategy=self.model.config.vision_feature_select_strategy,
            image_newline=newline,
        )
        return torch.as_tensor(packed[0])


class SkippingNextStages(LlavaNextStages, SkippingStages):
    """The same, with tiles that may be left out."""

    def _newline(self) -> Tensor:
        return torch.as_tensor(self.model.model.image_newline)


def per_tile(lines: Iterable[int], side: int, tiles: int) -> list[int]:
    """Count how many of the mosaic's rows (or columns) `lines` are in each of its `tiles`, of `side` rows each."""
    counts = Counter(line // side for line in lines)
    return [counts[tile] for tile in range(tiles)]


LLAVA_NEXT = Family(
    model_type="llava_next",
    name="LLaVA-NeXT",
    stages=SkippingNextStages,
    processor=LlavaNextProcessor,
    image_processor=LlavaNextImageProcessorPil,
    check=check_tower,
    template=templates.llava_next,
    own_tensors=("image_newline",),
)
