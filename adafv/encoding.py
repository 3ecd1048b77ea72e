"""An image on its way to the language model: as the vision tower takes it, and as it comes out of the projector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from adafv.evidence import Grid

CROPS_AT_ONCE = 8  # enough to fill a device; more only takes more memory

_T = TypeVar("_T")


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
class Part:
    """Which part of an image was encoded, and what it would be with all of its tiles.

    Args:
        numbers: of the crops that were encoded, ascending.
        crops: that the image is cut into.
        visual, packed: candidates and tokens that it would have.
        places: (P,) int64 on the CPU, where its tokens would then be among the packed ones.
    """

    numbers: tuple[int, ...]
    crops: int
    visual: int
    packed: int
    places: Tensor


@dataclass(frozen=True)
class ImageEncoding:
    """One image as the language model would take it, with what pruners need to know about it.

    Args:
        packed: (P, D) projected tokens in the order of the model's own packing, newlines included.
        candidates: (N,) int64, places in `packed` of the tokens that may be pruned: all but newlines, ascending.
        features: (N, C), the vision tower's features of the candidates, before the projector.
        saliency: (N,) float32.
        crop: (N,) int64, the crop that each candidate comes from, counted among those that were encoded.
        cell: (N,) int64, its place in the patch grid of that crop, row by row. Candidates that were interpolated from
            several patches have crop and cell of the patch under their middle.
        crops: how many were encoded.
        grids: (rows, columns) of the patch grids that the candidates make up, in order; of a mosaic without some of its
            tiles, one for each band of tile rows that lack the same.
        keys: (N, C'), key projections of the vision layer that saliency reads, where they were asked for; those of
            interpolated candidates are interpolated alike.
        cosines: (N, N) float32 of every two candidates' `tokens` or `features`, where a pruner has asked for them and
            there are several questions about the image, which share them. A stream clears them with each batch.
        part: `None` where all crops were encoded.
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
    part: Part | None = None

    @classmethod
    def of_crop(
        cls, side: int, tokens: Tensor, features: Tensor, saliency: Tensor, keys: Tensor | None = None
    ) -> ImageEncoding:
        """Encode an image that is one crop of `side` x `side` patches.

        Args:
            side: of the grid.
            tokens: (P, D), projected.
            features: (P, C), before the projector.
            saliency: (P,) float32.
            keys: (P, C').
        """
        places = torch.arange(tokens.shape[0], device=tokens.device)
        return cls(
            packed=tokens.clone(),  # a view would keep what was encoded together with it alive
            candidates=places,
            features=features.clone(),
            saliency=saliency.clone(),
            crop=torch.zeros_like(places),
            cell=places,
            crops=1,
            grids=((side, side),),
            keys=None if keys is None else keys.clone(),
        )

    @property
    def visual(self) -> int:
        """N, the candidates."""
        return self.candidates.shape[0]

    @property
    def tokens(self) -> Tensor:
        """(N, D): the candidates themselves."""
        return self.packed[self.candidates] if self.newlines else self.packed

    @property
    def numbers(self) -> tuple[int, ...]:
        """Number the crops that were encoded, as they count in the image."""
        return tuple(range(self.crops)) if self.part is None else self.part.numbers

    @property
    def whole_crops(self) -> int:
        """Count the crops that the image is cut into."""
        return self.crops if self.part is None else self.part.crops

    @property
    def whole_visual(self) -> int:
        """Count the candidates that it has, or would have with all crops encoded."""
        return self.visual if self.part is None else self.part.visual

    @property
    def whole_packed(self) -> int:
        """Count the tokens of which the unpruned image is made, newlines included."""
        return self.packed.shape[0] if self.part is None else self.part.packed

    def whole_places(self, places: Tensor) -> Tensor:
        """Tell where packed tokens at `places` (K,) would be among those of the unpruned image."""
        return places if self.part is None else self.part.places.to(places.device)[places]

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


def tower_groups(images: Iterable[tuple[_T, int]]) -> Iterator[list[_T]]:
    """Divide images, each with its number of crops, into groups that go through the vision tower together."""
    group: list[_T] = []
    crops = 0
    for image, more in images:
        if group and crops + more > CROPS_AT_ONCE:
            yield group
            group, crops = [], 0
        group.append(image)
        crops += more
    if group:
        yield group
