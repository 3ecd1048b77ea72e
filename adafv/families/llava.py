"""LLaVA-1.5, BakLLaVA, LLaVA-Llama-3 and ViP-LLaVA: one crop an image."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, LlavaProcessor

from adafv.encoding import ImageEncoding, Pixels
from adafv.families import templates
from adafv.families.base import Family, ImagePlan
from adafv.families.geometry import Frame, single_crop
from adafv.families.stages import Stages
from adafv.families.tower import check_tower
from adafv.images import check_resized


class LlavaStages(Stages):
    """The stages of one loaded checkpoint with one crop an image."""

    pads = True

    @staticmethod
    def plan(config: Any, height: int, width: int) -> ImagePlan:
        """Plan one crop, whatever the size of the image."""
        side = config.vision_config.image_size // config.vision_config.patch_size
        return ImagePlan(crops=1, visual=side**2, newlines=0, grids=((side, side),))

    def frames(self, size: tuple[int, int], padded: bool = False) -> list[Frame]:
        """Tell where the crop of an image of `size` (height, width) lies in it."""
        height, width = size
        return [single_crop(width, height, self._processor.image_processor, padded)]

    def preprocess(self, image: Image, padded: bool = False) -> Pixels:
        """Preprocess as all stages do; the shorter side becomes the crop's, however long the other one then is."""
        edge = (getattr(self._processor.image_processor, "size", None) or {}).get("shortest_edge")
        if edge and not padded:
            check_resized(image, edge)
        return super().preprocess(image, padded)

    def _pack(
        self, pixels: Pixels, tokens: Tensor, features: Tensor, saliency: Tensor, keys: Tensor | None
    ) -> ImageEncoding:
        return ImageEncoding.of_crop(self.side, tokens[0], features[0], saliency[0], None if keys is None else keys[0])


LLAVA = Family(
    model_type="llava",
    name="LLaVA-1.5",
    stages=LlavaStages,
    processor=LlavaProcessor,
    image_processor=CLIPImageProcessorPil,
    check=check_tower,
    template=templates.llava,
)

VIP_LLAVA = Family(
    model_type="vipllava",
    name="ViP-LLaVA",
    stages=LlavaStages,
    processor=LlavaProcessor,
    image_processor=CLIPImageProcessorPil,
    check=check_tower,
    template=templates.vip_llava,
)
