"""An image on its way to the language model: as the vision tower takes it, and as it comes out of the projector."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adafv.evidence import Grid


@dataclass(frozen=True)
class Pixels:
    """One image as the vision tower takes it.

    Args:
        values: (crops, 3, H, W) float32 on the CPU.
        size: (height, width) of the original image.
        padded: whether it was padded to a square first.
    """

    values: Tensor
    size: tuple[int, int]
    padded: bool = False


@dataclass(frozen=True)
class ImageEncoding:
    """One image as the language model would take it, with what pruners need to know about it.

    Args:
        packed: (P, D) projected tokens in the order of the model's own packing, newlines included.
        candidates: (N,) int64, places in `packed` of the tokens that may be pruned: all but newlines, ascending.
        features: (N, C), the vision tower's features of the candidates, before the projector.
        saliency: (N,) float32.
        crop: (N,) int64, the crop that each candidate comes from.
        cell: (N,) int64, its place in the patch grid of that crop, row by row. Candidates that were interpolated from
            several patches have crop and cell of the patch under their middle.
        crops: how many there are.
        grids: (rows, columns) of the patch grids that the candidates make up, in order.
        keys: (N, C'), key projections of the vision layer that saliency reads, where they were asked for; those of
            interpolated candidates are interpolated alike.
        cosines: (N, N) float32 of every two candidates' `tokens` or `features`, where a pruner has asked for them and
            there are several questions about the image, which share them. A stream clears them with each batch.
    """

    packed: Tensor
    candidates: Tensor
    features: Tensor
    saliency: Tensor
    crop: Tensor
    cell: Tensor
    crops: int
    grids: tuple[Grid, ...]
    keys: Tensor | None = None
    cosines: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    @cached_property
    def crop_sizes(self) -> tuple[int, ...]:
        """Count the candidates of each crop. Synchronises with the device, once."""
        return tuple(self.crop.bincount(minlength=self.crops).tolist())

    @property
    def bytes(self) -> int:
        """Memory that its tensors take, without its cosines."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def to(self, device: torch.device) -> ImageEncoding:
        """Move it to another device, without its cosines."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return replace(self, **moved)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All its tensors, by field; cosines, which can be had anew, are not among them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}
