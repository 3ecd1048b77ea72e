"""The stages between an image and the language model: pixels, vision tower, projector, packing, embeddings.

What differs from transformers:
    - Features and the query and key projections of the deepest feature layer are recorded by hooks, for the attention
      that is saliency. Attention kernels stay as they are, and no map is held.
    - Visual tokens come with a map from candidates to packed places, so that some can be left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate.utils import align_module_device
from PIL.Image import Image
from torch import Tensor

from adafv.encoding import ImageEncoding, Pixels
from adafv.errors import CheckpointError, InputError
from adafv.families.base import ImagePlan
from adafv.families.geometry import Box, Frame
from adafv.families.hooks import execution_device, recording
from adafv.families.tower import feature_layers, tower_of
from adafv.images import square


class Stages(ABC):
    """The stages of one loaded checkpoint; a family says how images are cut and how their tokens are packed.

    `pads` says whether an image may be padded to a square: where it becomes one crop, whose sides would be cut off.
    A model has its tower at `model.vision_tower`, its projector at `model.multi_modal_projector`. A family gives
    `plan`, `frames` and `_pack`, and overrides what else is different. `encode` is not run under `adafv.pruned`: there
    the caller's model encodes, and `pixels`, `overhearing` and `overheard` are what is called.

    Args:
        model: the Hugging Face model, wherever its weights are.
        processor: its processor.

    Raises:
        CheckpointError: a tower of another kind, or feature layers that it does not have.
    """

    pads = False

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self._processor = model, processor
        self._tower = model.model.vision_tower
        self._projector = model.model.multi_modal_projector
        self._vision = model.config.vision_config
        # Hidden state 0 is what the first layer takes, i what the i-th layer gives.
        self._kind, used = tower_of(model.config), feature_layers(model.config)
        givers = [getattr(self._tower, self._kind.start), *self._tower.encoder.layers]
        self._deepest = givers[max(used)]
        attention = self._deepest.self_attn
        self._features = [f"feature {number}" for number in range(len(used))]
        self._last_feature = self._features[used.index(max(used))]
        self._recorded = dict(zip(self._features, (givers[index] for index in used), strict=True))
        self._recorded |= {"query": attention.q_proj, "key": attention.k_proj}

    @staticmethod
    @abstractmethod
    def plan(config: Any, height: int, width: int) -> ImagePlan:
        """Tell what an upright image of `height` x `width` pixels becomes, from the configuration alone."""

    @abstractmethod
    def frames(self, size: tuple[int, int], padded: bool = False) -> list[Frame]:
        """Tell where the crops of an image of `size` (height, width) lie in it, in the order of `Pixels.values`.

        Args:
            size: of the image as it was opened.
            padded: whether it was padded to a square first, in a family that `pads`.

        `show` draws the crops of `Pixels` through these frames, so both are upright; a family that mirrors or turns
        what it feeds its tower does so in `encode`, and says in `boxes` what a cell then shows.
        """

    def boxes(self, size: tuple[int, int], encoding: ImageEncoding, padded: bool = False) -> list[Box | None]:
        """Tell what each candidate of an image of `size` (height, width) shows of it; `None` where that is padding.

        Here that is its patch in its crop's frame, which is wrong where a candidate is no patch of an upright crop.
        """
        frames, patch, numbers = self.frames(size, padded), self._vision.patch_size, encoding.numbers
        places = zip(encoding.crop.tolist(), encoding.cell.tolist(), strict=True)
        return [frames[numbers[crop]].cell(cell, self.side, patch) for crop, cell in places]

    @abstractmethod
    def _pack(
        self, pixels: Pixels, tokens: Tensor, features: Tensor, saliency: Tensor, keys: Tensor | None
    ) -> ImageEncoding:
        """Put the tokens of one image in the model's own order.

        Args:
            pixels: the image.
            tokens: (crops, P, D), projected.
            features: (crops, P, C), before the projector.
            saliency: (crops, P) float32.
            keys: (crops, P, C'), of the layer that saliency reads; `None` where nobody asked for them.
        """

    @property
    def saliency(self) -> str:
        """What the saliency of its images is, in a few words: `attention of [CLS]`, say."""
        return self._kind.saliency

    @property
    def side(self) -> int:
        """Patches along one side of a crop."""
        return int(self._vision.image_size // self._vision.patch_size)

    def padded(self, pad: bool | None, protocol: str | None) -> bool:
        """Tell whether images are padded to a square, of `pad` and `protocol` of `RunSettings`.

        Raises:
            InputError: that is asked for where an image is cut into tiles.
        """
        if pad and not self.pads:
            what = "pad: this checkpoint cuts an image into a thumbnail and tiles, and loses nothing of it"
            raise InputError(what, "leave it out: its published figures are without padding")
        return pad if pad is not None else self._pads_itself or (self.pads and protocol is not None)

    @property
    def _pads_itself(self) -> bool:
        """Whether the checkpoint's own image processor pads to a square."""
        images = self._processor.image_processor
        return self.pads and bool(getattr(images, "do_pad", False)) and hasattr(images, "pad_to_square")

    def square(self, image: Image) -> Image:
        """Pad an image to a square with the processor's mean colour.

        Raises:
            ImageError: the square would be too large.
        """
        mean = self._processor.image_processor.image_mean or 0
        red, green, blue = (int(255 * level) for level in ([mean] * 3 if isinstance(mean, int | float) else mean))
        return square(image, (red, green, blue))

    def preprocess(self, image: Image, padded: bool = False) -> Pixels:
        """Pad to a square where that is asked for, then resize, crop and normalise as the image processor says.

        Raises:
            ImageError: a strip so thin that resizing it would need a huge image, or padding it.
            CheckpointError: an image processor that makes other crops than the model takes.
        """
        size = (image.height, image.width)
        taken = self.square(image) if padded else image
        own = {"do_pad": False} if self._pads_itself else {}
        processed = self._processor.image_processor(images=taken, return_tensors="pt", **own, **self._processing)
        values = processed["pixel_values"]
        values = values.reshape(-1, *values.shape[-3:])
        pixels, wanted = self._vision.image_size, self.plan(self.model.config, *size).crops
        if values.shape[0] != wanted or values.shape[2:] != (pixels, pixels):
            raise CheckpointError(
                f"the image processor made {values.shape[0]} crops of {values.shape[3]} x {values.shape[2]} pixels "
                f"where the model takes {wanted} of {pixels} x {pixels}",
                "config.json and preprocessor_config.json do not belong together: fetch the checkpoint again",
            )
        return Pixels(values, size, padded)

    @property
    def _processing(self) -> dict[str, Any]:
        """What the image processor is told by the model's config rather than by its own."""
        return {}

    def encode(self, images: list[Pixels], *, keys: bool = False) -> list[ImageEncoding]:
        """Run vision tower and projector over all crops of all images at once, then pack image by image.

        Args:
            images: as preprocessed.
            keys: also keep the keys of the layer that saliency reads.
        """
        features, saliency, found = self._vision_features(torch.cat([pixels.values for pixels in images]))
        return self._split(images, self._projector(features), features, saliency, found if keys else None)

    def pixels(self, values: Tensor, sizes: Tensor | None) -> list[Pixels]:
        """Take apart what the processor makes of several images.

        Args:
            values: (images, 3, H, W), or (images, crops, 3, H, W) padded to the most crops.
            sizes: (images, 2), heights and widths of the images; `None` in families whose crops do not depend on them.
        """
        listed = [values.shape[-2:]] * len(values) if sizes is None else sizes.tolist()
        cut = values if values.dim() == 5 else values[:, None]
        plans = [self.plan(self.model.config, *size) for size in listed]
        return [
            Pixels(crops[: plan.crops], (height, width))
            for crops, plan, (height, width) in zip(cut, plans, listed, strict=True)
        ]

    def overhearing(self) -> AbstractContextManager[dict[str, Tensor]]:
        """Record what `overheard` needs, while somebody else runs vision tower and projector."""
        return recording(self._recorded | {"projected": self._projector})

    def overheard(
        self, images: list[Pixels], recorded: Mapping[str, Tensor], *, keys: bool = False
    ) -> list[ImageEncoding]:
        """Pack images that somebody else has encoded together; `keys` as of `encode`."""
        features, saliency, found = self._read(recorded)
        return self._split(images, recorded["projected"], features, saliency, found if keys else None)

    def _vision_features(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn (crops, 3, H, W) pixels into features, saliency and keys of the patches, without [CLS].

        These are (crops, P, C), (crops, P) float32, and (crops, P, C') of the layer that saliency reads. Layers of the
        tower behind the deepest one that is used do not run.
        """
        with recording(self._recorded, last=self._deepest) as recorded:
            self._tower(values.to(execution_device(self._tower), self._tower.dtype))
        return self._read(recorded)

    def _read(self, recorded: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Make features, saliency and keys of what the tower's modules gave."""
        hidden = [recorded[name] for name in self._features]
        home = recorded[self._last_feature].device
        features = hidden[0] if len(hidden) == 1 else torch.cat([state.to(home) for state in hidden], dim=-1)
        heads = self._vision.num_attention_heads
        scale = (self._vision.hidden_size // heads) ** -0.5
        saliency = self._kind.attention(recorded["query"], recorded["key"], heads, scale)
        patches = slice(self._kind.prefix, None)
        return features[:, patches], saliency.to(home), recorded["key"][:, patches].to(home)

    def _split(
        self, images: list[Pixels], tokens: Tensor, features: Tensor, saliency: Tensor, keys: Tensor | None
    ) -> list[ImageEncoding]:
        crops = [len(pixels.values) for pixels in images]
        split = (torch.split(tensor, crops) for tensor in (tokens, features, saliency))
        keyed = [None] * len(images) if keys is None else torch.split(keys, crops)
        with align_module_device(self.model.model):  # a newline is no layer's weight, and may be offloaded
            return [self._pack(*parts) for parts in zip(images, *split, keyed, strict=True)]

    def embed(self, ids: list[int]) -> Tensor:
        """Embed text tokens: (T, D)."""
        table = self.model.get_input_embeddings()
        embedded: Tensor = table(torch.tensor(ids, dtype=torch.long, device=execution_device(table)))
        return embedded
