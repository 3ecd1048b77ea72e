"""What is special about a family: what becomes of an image, and the record of all the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from adafv.evidence import Grid

if TYPE_CHECKING:
    from adafv.families.stages import Stages


@dataclass(frozen=True)
class ImagePlan:
    """What an image of some size becomes.

    Args:
        crops: images that the vision tower sees.
        visual: visual tokens that may be pruned.
        newlines: row ends of a mosaic, fed to the language model only when nothing is pruned.
        grids: (rows, columns) of the patch grids that the visual tokens make up, in order: one for a single crop;
            for a thumbnail and tiles the thumbnail's, then the unpadded mosaic's, unless that is empty.
        crop_sizes: how many of the visual tokens come from each crop; none where there is one crop.
    """

    crops: int
    visual: int
    newlines: int
    grids: tuple[Grid, ...]
    crop_sizes: tuple[int, ...] = ()

    def with_tiles(self, tiles: str) -> ImagePlan:
        """Plan the image with some of its tiles, the largest ones, since only the thumbnail will tell which.

        Args:
            tiles: as of `RunSettings`; of `auto`, which may take any number, all.

        Returns:
            At most this many crops, visual tokens and newlines; `grids` are those of the whole image.
        """
        if not self.crop_sizes or tiles in ("all", "auto") or int(tiles) >= self.crops - 1:
            return self
        thumbnail, *sizes = self.crop_sizes
        kept = (thumbnail, *sorted(sizes, reverse=True)[: int(tiles)])
        return replace(self, crops=len(kept), visual=sum(kept), crop_sizes=kept)

    @property
    def packed(self) -> int:
        """Places that the unpruned image takes in the prompt."""
        return self.visual + self.newlines


@dataclass(frozen=True)
class Family:
    """All that is special about one family of checkpoints; nobody else asks which family a model is of.

    Args:
        model_type: in its configuration. transformers' `AutoConfig` and `AutoModelForImageTextToText` must know it:
            code that comes with a checkpoint is never run.
        name: as people call it.
        stages: the class of its stages: `stages(model, processor)` for a loaded checkpoint, and `stages.plan` for what
            becomes of an image.
        processor: transformers' class for image processor, tokenizer and chat template together.
        image_processor: transformers' class of its image processor on Pillow.
        check: `(name, config)`, refuses a configuration that the stages cannot serve with a `CheckpointError`.
        template: names the documented chat template for a configuration, one of `adafv.chat_templates.NAMES`.
        own_tensors: names of weights that not every family has.
        in_parts: whether `processor` is put together from image processor and tokenizer, and not what its files name.
    """

    model_type: str
    name: str
    stages: type[Stages]
    processor: Any
    image_processor: Any
    check: Callable[[str, Any], None]
    template: Callable[[Any], str]
    own_tensors: tuple[str, ...] = ()
    in_parts: bool = False
