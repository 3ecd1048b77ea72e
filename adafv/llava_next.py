"""The stages of LLaVA-NeXT that differ from LLaVA-1.5: an image is a thumbnail and a mosaic of tiles.

Differences from transformers:
    - One image at a time, so crops are never padded to the batch's largest number.
    - The index of each patch goes through the model's own packing beside the features: what comes out says which
      patch of which crop each packed token is, whatever mosaic order and unpadding did. Newlines come out as -1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafv.llava import ImageEncoding, LlavaStages, Pixels


class LlavaNextStages(LlavaStages):
    """The stages of one loaded LLaVA-NeXT checkpoint."""

    _tiles = True

    def _pack(self, pixels: Pixels, tokens: Tensor, saliency: Tensor) -> ImageEncoding:
        """`tokens` (crops, P, D), `saliency` (crops, P): thumbnail first, then the tiles."""
        crops, patches = saliency.shape
        origin = torch.arange(crops * patches, dtype=torch.float64, device=tokens.device).view(crops, patches, 1)
        packed = self._packing(tokens, pixels, self.model.model.image_newline)
        origin = self._packing(origin, pixels, origin.new_full((1,), -1.0))[:, 0].long()
        candidates = (origin >= 0).nonzero()[:, 0]
        chosen = origin[candidates]
        # Every row of the mosaic ends in a newline. Of a strip one pixel wide unpadding may leave nothing else.
        rows = len(origin) - len(chosen)
        mosaic = (rows, (len(chosen) - patches) // rows)
        thumbnail = (self.side, self.side)
        return ImageEncoding(
            packed=packed,
            candidates=candidates,
            saliency=saliency.flatten()[chosen],
            crop=chosen // patches,
            crops=crops,
            grids=(thumbnail, mosaic) if mosaic[1] else (thumbnail,),
        )

    def _packing(self, tokens: Tensor, pixels: Pixels, newline: Tensor) -> Tensor:
        """The model's own packing of one image: (crops, P, D) to (packed, D)."""
        packed, _ = self.model.model.pack_image_features(
            [tokens],
            [pixels.size],
            vision_feature_select_strategy=self.model.config.vision_feature_select_strategy,
            image_newline=newline,
        )
        return torch.as_tensor(packed[0])
