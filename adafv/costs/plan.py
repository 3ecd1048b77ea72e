"""What answering will take, before any weight is loaded: crops and tokens of an image, FLOPs and cache of an answer.

Everything follows from the configuration, the size of the image and the lengths of text and answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from adafv.budget import Budget
from adafv.costs.accounting import Accountant
from adafv.errors import InputError
from adafv.evidence import Grid
from adafv.loading.checkpoint import layers_that_run
from adafv.records import Flops, MemoryBytes, TokenCounts


@dataclass(frozen=True)
class ImagePlan:
    """What an image of some size becomes.

    Args:
        crops: images that the vision tower sees.
        visual: visual tokens that may be pruned.
        newlines: row ends of a LLaVA-NeXT mosaic, fed to the language model only when nothing is pruned.
        grids: (rows, columns) of the patch grids that the visual tokens make up, in order: one for LLaVA-1.5;
            for LLaVA-NeXT the thumbnail's, then the unpadded mosaic's, unless unpadding leaves nothing of it.
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
class PromptPlan:
    """Lengths in tokens.

    Args:
        before: text in front of the image.
        after: text behind it, which the similarity looks at.
        generated: the answer, its end token included.
    """

    before: int
    after: int
    generated: int

    @property
    def text(self) -> int:
        """All tokens of the prompt that are not visual."""
        return self.before + self.after


@dataclass(frozen=True)
class AnswerPlan:
    """The records that an answer will carry. Which signal chooses a token is not known before."""

    tokens: TokenCounts
    flops: Flops
    memory_bytes: MemoryBytes

    @property
    def speedup_bound(self) -> float:
        """Unpruned FLOPs over these: the speed-up where every stage runs at the same FLOP/s."""
        return self.flops.unpruned_total / self.flops.total


def plan_image(config: Any, height: int, width: int) -> ImagePlan:
    """Crops and tokens of an image, by transformers' own choice of a grid and its own unpadding.

    Args:
        config: of a LLaVA or LLaVA-NeXT checkpoint.
        height, width: of the upright image in pixels.

    Raises:
        InputError: no pixels.
    """
    if height < 1 or width < 1:
        raise InputError(f"an image of {width} x {height} has no pixels", "give 1 x 1 pixels or more")
    image = config.vision_config.image_size
    side = image // config.vision_config.patch_size
    thumbnail = (side, side)
    if config.model_type != "llava_next":
        return ImagePlan(crops=1, visual=side**2, newlines=0, grids=(thumbnail,))
    size, pinpoints = (height, width), config.image_grid_pinpoints
    tile_rows, tile_columns = get_anyres_image_grid_shape(size, pinpoints, image)
    # A tensor that has a shape and no content, since unpadding is written for tensors.
    tiles = torch.empty(1, tile_rows * side, tile_columns * side, device="meta")
    rows, columns = unpad_image(tiles, size).shape[1:]
    return ImagePlan(
        crops=image_size_to_num_patches(size, pinpoints, image),
        visual=side**2 + rows * columns,
        newlines=rows,
        grids=(thumbnail, (rows, columns)) if rows * columns else (thumbnail,),
    )


def plan_answer(
    config: Any,
    image: ImagePlan,
    budget: Budget,
    prompt: PromptPlan,
    *,
    pruner: str = "adafv",
    bytes_per_value: int = 2,
) -> AnswerPlan:
    """What one answer will cost on its own, image encoding included.

    Args:
        config: as published: the vision tower with all its layers.
        image: from `plan_image`.
        budget: visual tokens to keep.
        prompt: lengths of text and answer.
        pruner: its name.
        bytes_per_value: of the key/value cache.
    """
    keep = image.visual if pruner == "none" else budget.tokens(image.visual)
    pruned = keep < image.visual
    newlines = 0 if pruned else image.newlines
    tokens = TokenCounts(
        visual=image.visual,
        kept=keep,
        from_saliency=None,
        from_similarity=None,
        from_both=None,
        text=prompt.text,
        generated=prompt.generated,
        crops=image.crops,
        newlines=newlines,
    )
    fed, unpruned = prompt.text + keep + newlines, prompt.text + image.packed
    accountant = Accountant.of(config, layers_that_run(config), bytes_per_value)
    return AnswerPlan(
        tokens=tokens,
        flops=accountant.costs(
            crops=image.crops,
            score=accountant.selection(pruner, keep=keep, visual=image.visual, text=prompt.after, own=prompt.after),
            fed=fed,
            unpruned=unpruned,
            generated=prompt.generated,
        ),
        memory_bytes=accountant.caches(fed=fed, unpruned=unpruned, generated=prompt.generated, peak=None),
    )
