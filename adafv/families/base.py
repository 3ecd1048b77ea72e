"""What families have in common: an image on its way to the language model, and the record of a family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adafv.evidence import Grid

if TYPE_CHECKING:
    from adafv.families.stages import Stages


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
class ImagePlan:
    """What an image of some size becomes.

    Args:
        crops: images that the vision tower sees.
        visual: visual tokens that may be pruned.
        newlines: row ends of a mosaic, fed to the language model only when nothing is pruned.
        grids: (rows, columns) of the patch grids that the visual tokens make up, in order: one for a single crop;
            for a thumbnail and tiles the thumbnail's, then the unpadded mosaic's, unless that is empty.
    """

    crops: int
    visual: int
    newlines: int
    grids: tuple[Grid, ...]

    @property
    def packed(self) -> int:
        """Places that the unpruned image takes in the prompt."""
        return self.visual + self.newlines


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
        """Move it to another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return replace(self, **moved)

    @property
    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Family:
    """All that is special about one family of checkpoints; nobody else asks which family a model is of.

    Args:
        model_type: in its configuration.
        name: as people call it.
        stages: the class of its stages: `stages(model, processor)` for a loaded checkpoint, and `stages.plan` for what
            becomes of an image.
        processor: transformers' class for image processor, tokenizer and chat template together.
        image_processor: transformers' class of its image processor on Pillow.
        check: `(name, config)`, refuses a configuration that the stages cannot serve with a `CheckpointError`.
        template: the documented chat template for a configuration, for checkpoints without one that can be used.
        own_tensors: names of weights that only this family has.
    """

    model_type: str
    name: str
    stages: type[Stages]
    processor: Any
    image_processor: Any
    check: Callable[[str, Any], None]
    template: Callable[[Any], str]
    own_tensors: tuple[str, ...] = ()
