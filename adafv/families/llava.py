"""The model-facing stages of LLaVA-1.5 and ViP-LLaVA: pixels, vision tower, projector, packing, embeddings.

Differences from transformers:
    - The vision tower ends behind the deepest layer whose output is used (cut when the checkpoint is loaded).
    - That layer's query and key projections are listened to, for the [CLS] attention row that is saliency.
    - Where several layers are used (ViP-LLaVA), theirs are the only outputs that are collected.
    - Visual tokens come with a map from candidates to packed places, so that some can be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from adafv.errors import CheckpointError
from adafv.evidence import Grid
from adafv.families.geometry import Frame, single_crop
from adafv.images import check_resized
from adafv.loading.checkpoint import Checkpoint
from adafv.loading.devices import execution_device
from adafv.signals.saliency import cls_attention


@dataclass(frozen=True)
class Pixels:
    """One image as the vision tower takes it.

    Args:
        values: (crops, 3, H, W) float32 on the CPU.
        size: (height, width) of the original image.
    """

    values: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class ImageEncoding:
    """One image as the language model would take it, with what pruners need to know about it.

    Args:
        packed: (P, D) projected tokens in the order of the model's own packing, newlines included.
        candidates: (N,) int64, places in `packed` of the tokens that may be pruned: all but newlines, ascending.
        features: (N, C), the vision tower's features of the candidates, before the projector.
        saliency: (N,) float32.
        crop: (N,) int64, the crop that each candidate comes from.
        cell: (N,) int64, its place in the patch grid of that crop, row by row.
        crops: how many there are.
        grids: (rows, columns) of the patch grids that the candidates make up, in order.
    """

    packed: Tensor
    candidates: Tensor
    features: Tensor
    saliency: Tensor
    crop: Tensor
    cell: Tensor
    crops: int
    grids: tuple[Grid, ...]

    @property
    def visual(self) -> int:
        """N, the candidates."""
        return self.candidates.shape[0]

    @property
    def tokens(self) -> Tensor:
        """(N, D): the candidates themselves."""
        return self.packed[self.candidates] if self.newlines else self.packed

    @property
    def newlines(self) -> int:
        """Packed tokens that are not candidates."""
        return self.packed.shape[0] - self.visual

    @property
    def bytes(self) -> int:
        """Memory that its tensors take."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def to(self, device: torch.device) -> ImageEncoding:
        """The same on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return replace(self, **moved)

    @property
    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


class LlavaStages:
    """The stages of one loaded checkpoint with one crop per image."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model
        self._processor = checkpoint.processor
        self._tower = self.model.model.vision_tower
        self._projector = self.model.model.multi_modal_projector
        self._vision = self.model.config.vision_config

    @property
    def side(self) -> int:
        """Patches along one side of a crop."""
        return int(self._vision.image_size // self._vision.patch_size)

    def preprocess(self, image: Image) -> Pixels:
        """Resize, crop and normalise as the checkpoint's image processor says.

        Raises:
            ImageError: a strip so thin that resizing it would need a huge image.
            CheckpointError: an image processor that makes other crops than the model takes.
        """
        edge = (getattr(self._processor.image_processor, "size", None) or {}).get("shortest_edge")
        if edge and not self._tiles:
            check_resized(image, edge)
        size = (image.height, image.width)
        values = self._processor.image_processor(images=image, return_tensors="pt", **self._processing)["pixel_values"]
        values = values.reshape(-1, *values.shape[-3:])
        pixels, wanted = self._vision.image_size, self._crops(size)
        if values.shape[0] != wanted or values.shape[2:] != (pixels, pixels):
            raise CheckpointError(
                f"the image processor made {values.shape[0]} crops of {values.shape[3]} x {values.shape[2]} pixels "
                f"where the model takes {wanted} of {pixels} x {pixels}",
                "config.json and preprocessor_config.json do not belong together: fetch the checkpoint again",
            )
        return Pixels(values, size)

    def frames(self, size: tuple[int, int]) -> list[Frame]:
        """Where the crops of an image of `size` (height, width) lie in it, in the order of `Pixels.values`."""
        height, width = size
        return [single_crop(width, height, self._processor.image_processor)]

    _tiles = False  # whether an image is cut into tiles rather than squeezed into one crop

    @property
    def _processing(self) -> dict[str, Any]:
        """What the image processor is told by the model's config rather than by its own."""
        return {}

    def _crops(self, size: tuple[int, int]) -> int:
        """Crops of an image of `size` (height, width)."""
        return 1

    def encode(self, images: list[Pixels]) -> list[ImageEncoding]:
        """Vision tower and projector over all crops of all images at once, then packing image by image."""
        features, saliency = self._vision_features(torch.cat([pixels.values for pixels in images]))
        projected = self._projector(features)
        crops = [len(pixels.values) for pixels in images]
        split = (torch.split(tensor, crops) for tensor in (projected, features, saliency))
        return [self._pack(*parts) for parts in zip(images, *split, strict=True)]

    def _vision_features(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(crops, 3, H, W) pixels to (crops, P, C) features and (crops, P) float32 saliency."""
        values = values.to(execution_device(self._tower), self._tower.dtype)
        with self._listening() as heard, self._collecting() as collected:
            hidden = self._tower(values).last_hidden_state
        if collected:
            hidden = torch.cat([collected[place].to(hidden.device) for place in sorted(collected)], dim=-1)
        heads = self._vision.num_attention_heads
        scale = (self._vision.hidden_size // heads) ** -0.5
        saliency = cls_attention(heard["query"], heard["key"], heads, scale)
        return hidden[:, 1:], saliency.to(hidden.device)

    @contextmanager
    def _listening(self) -> Iterator[dict[str, Tensor]]:
        """Hear the last layer's [CLS] query and keys, whatever the attention kernel, as long as the `with` lasts."""
        attention = self._tower.encoder.layers[-1].self_attn
        heard: dict[str, Tensor] = {}

        def hear_query(_module: Any, _args: Any, output: Tensor) -> None:
            heard["query"] = output[:, 0]

        def hear_key(_module: Any, _args: Any, output: Tensor) -> None:
            heard["key"] = output

        hooks = [
            attention.q_proj.register_forward_hook(hear_query),
            attention.k_proj.register_forward_hook(hear_key),
        ]
        try:
            yield heard
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _collecting(self) -> Iterator[dict[int, Tensor]]:
        """The outputs of the feature layers, where there is a list of them, under their places in that list."""
        listed = self.model.config.vision_feature_layer
        layers = [] if isinstance(listed, int) else listed
        collected: dict[int, Tensor] = {}

        def collect(place: int) -> Callable[[Any, Any, Tensor], None]:
            def hook(_module: Any, _args: Any, output: Tensor) -> None:
                collected[place] = output

            return hook

        # Hidden state 0 is what the first layer takes, i what the i-th layer gives.
        givers = [self._tower.pre_layrnorm, *self._tower.encoder.layers]
        hooks = [givers[layer].register_forward_hook(collect(place)) for place, layer in enumerate(layers)]
        try:
            yield collected
        finally:
            for hook in hooks:
                hook.remove()

    def _pack(self, pixels: Pixels, tokens: Tensor, features: Tensor, saliency: Tensor) -> ImageEncoding:
        """One crop: its patches, row by row. `tokens` (1, P, D), `features` (1, P, C), `saliency` (1, P)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return ImageEncoding(
            packed=tokens[0].clone(),  # a view would keep the images alive that were encoded together with this one
            candidates=places,
            features=features[0].clone(),
            saliency=saliency[0].clone(),
            crop=torch.zeros_like(places),
            cell=places,
            crops=1,
            grids=((self.side, self.side),),
        )

    def embed(self, ids: list[int]) -> Tensor:
        """(T, D) input embeddings of text tokens."""
        table = self.model.get_input_embeddings()
        embedded: Tensor = table(torch.tensor(ids, dtype=torch.long, device=execution_device(table)))
        return embedded
