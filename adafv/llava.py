"""The model-facing stages of LLaVA-1.5: pixels, vision tower, projector, packing, embeddings.

Differences from transformers:
    - The vision tower ends behind the layer whose output LLaVA uses (cut when the checkpoint is loaded).
    - That layer's query and key projections are listened to, for the [CLS] attention row that is saliency.
    - Visual tokens come with a map from candidates to packed places, so that some can be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from adafv.checkpoint import Checkpoint
from adafv.devices import execution_device
from adafv.errors import CheckpointError
from adafv.evidence import Grid
from adafv.images import check_resized
from adafv.saliency import cls_attention


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
        saliency: (N,) float32.
        crop: (N,) int64, the crop that each candidate comes from.
        crops: how many there are.
        grids: (rows, columns) of the patch grids that the candidates make up, in order.
    """

    packed: Tensor
    candidates: Tensor
    saliency: Tensor
    crop: Tensor
    crops: int
    grids: tuple[Grid, ...]

    @property
    def visual(self) -> int:
        """N, the candidates."""
        return self.candidates.shape[0]

    @property
    def newlines(self) -> int:
        """Packed tokens that are not candidates."""
        return self.packed.shape[0] - self.visual

    def to(self, device: torch.device) -> ImageEncoding:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("packed", "candidates", "saliency", "crop")}
        return replace(self, **moved)


class LlavaStages:
    """The stages of one loaded LLaVA-1.5 checkpoint."""

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
        """
        edge = (getattr(self._processor.image_processor, "size", None) or {}).get("shortest_edge")
        if edge and not self._tiles:
            check_resized(image, edge)
        values = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
        return Pixels(values.reshape(-1, *values.shape[-3:]), (image.height, image.width))

    _tiles = False  # whether an image is cut into tiles rather than squeezed into one crop

    def encode(self, images: list[Pixels]) -> list[ImageEncoding]:
        """Vision tower and projector over all crops of all images at once, then packing image by image."""
        features, saliency = self._vision_features(torch.cat([pixels.values for pixels in images]))
        projected = self._projector(features)
        crops = [len(pixels.values) for pixels in images]
        rows = zip(images, torch.split(projected, crops), torch.split(saliency, crops), strict=True)
        return [self._pack(pixels, tokens, scores) for pixels, tokens, scores in rows]

    def _vision_features(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(crops, 3, H, W) pixels to (crops, P, C) features and (crops, P) float32 saliency."""
        values = values.to(execution_device(self._tower), self._tower.dtype)
        with self._listening() as heard:
            hidden = self._tower(values).last_hidden_state
        if hidden.shape[1] != 1 + self.side**2:
            raise CheckpointError(
                f"the vision tower made {hidden.shape[1]} tokens where its config promises [CLS] and {self.side**2}",
                "config.json and processor files do not belong together: fetch the checkpoint again",
            )
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

    def _pack(self, pixels: Pixels, tokens: Tensor, saliency: Tensor) -> ImageEncoding:
        """One crop: its patches, row by row. `tokens` (1, P, D), `saliency` (1, P)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return ImageEncoding(
            packed=tokens[0],
            candidates=places,
            saliency=saliency[0],
            crop=torch.zeros_like(places),
            crops=1,
            grids=((self.side, self.side),),
        )

    def embed(self, ids: list[int]) -> Tensor:
        """(T, D) input embeddings of text tokens."""
        table = self.model.get_input_embeddings()
        embedded: Tensor = table(torch.tensor(ids, dtype=torch.long, device=execution_device(table)))
        return embedded
