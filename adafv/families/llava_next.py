"""The stages of LLaVA-NeXT that differ from LLaVA-1.5: an image is a thumbnail and a mosaic of tiles.

Differences from transformers:
    - One image at a time, so crops are never padded to the batch's largest number.
    - The index of each patch goes through the model's own packing beside the features: what comes out says which
      patch of which crop each packed token is, whatever mosaic order and unpadding did. Newlines come out as -1.
    - The image processor cuts by the model's list of resolutions, which is the one that packing goes by.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from adafv.evidence import Grid
from adafv.families.geometry import Frame, thumbnail_and_tiles
from adafv.families.llava import ImageEncoding, LlavaStages, Pixels


class LlavaNextStages(LlavaStages):
    """The stages of one loaded LLaVA-NeXT checkpoint."""

    _tiles = True

    @property
    def _processing(self) -> dict[str, Any]:
        if not hasattr(self._processor.image_processor, "image_grid_pinpoints"):
            return {}  # not one for this family: the number of crops will tell
        return {"image_grid_pinpoints": self.model.config.image_grid_pinpoints}

    def _crops(self, size: tuple[int, int]) -> int:
        return int(image_size_to_num_patches(size, self.model.config.image_grid_pinpoints, self._vision.image_size))

    def frames(self, size: tuple[int, int]) -> list[Frame]:
        """Where the thumbnail and the tiles of an image of `size` (height, width) lie in it."""
        height, width = size
        images, resolutions = self._processor.image_processor, self.model.config.image_grid_pinpoints
        return thumbnail_and_tiles(width, height, images, resolutions)

    def _pack(self, pixels: Pixels, tokens: Tensor, features: Tensor, saliency: Tensor) -> ImageEncoding:
        """`tokens` (crops, P, D), `features` (crops, P, C), `saliency` (crops, P): thumbnail first, then the tiles."""
        crops, patches = saliency.shape
        # On the CPU: not every device has float64, and asking where newlines are would wait for the device.
        origin = torch.arange(crops * patches, dtype=torch.float64).view(crops, patches, 1)
        packed = self._packing(tokens, pixels, self.model.model.image_newline)
        origin = self._packing(origin, pixels, origin.new_full((1,), -1.0))[:, 0].long()
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
            grids=self._grids(len(chosen) - patches, len(origin) - len(chosen)),
        )

    def _grids(self, mosaic: int, newlines: int) -> tuple[Grid, ...]:
        """The thumbnail's grid and that of `mosaic` tokens; every row of the mosaic ends in a newline.

        Unpadding leaves no column of a strip that is thin enough, or no row and so no newline either.
        """
        thumbnail = (self.side, self.side)
        return (thumbnail, (newlines, mosaic // newlines)) if mosaic else (thumbnail,)

    def _packing(self, tokens: Tensor, pixels: Pixels, newline: Tensor) -> Tensor:
        """The model's own packing of one image: (crops, P, D) to (packed, D)."""
        packed, _ = self.model.model.pack_image_features(
            [tokens],
            [pixels.size],
            vision_feature_select_strategy=self.model.config.vision_feature_select_strategy,
            image_newline=newline,
        )
        return torch.as_tensor(packed[0])
