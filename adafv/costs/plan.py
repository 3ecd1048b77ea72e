"""What answering will take, before any weight is loaded: crops and tokens of an image, FLOPs and cache of an answer.

Everything follows from the configuration, the size of the image and the lengths of text and answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adafv.costs.accounting import Accountant
from adafv.errors import InputError
from adafv.families import family_of
from adafv.families.base import ImagePlan
from adafv.families.skipping import SkippingStages
from adafv.families.tower import layers_that_run
from adafv.pruners.mixture import FLOOR
from adafv.settings import RunSettings
from adafv.spent import Flops, MemoryBytes, TokenCounts
from adafv.tiles import looks


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
    """Tell what an image of some size becomes, as its family cuts it.

    Args:
        config: of a checkpoint.
        height, width: of the upright image in pixels.

    Raises:
        InputError: no pixels.
        CheckpointError: a family that is not ours.
    """
    if height < 1 or width < 1:
        raise InputError(f"an image of {width} x {height} has no pixels", "give 1 x 1 pixels or more")
    return family_of(config).stages.plan(config, height, width)


def skips_tiles(config: Any) -> bool:
    """Tell whether tiles of a checkpoint's images may be left out."""
    return issubclass(family_of(config).stages, SkippingStages)


def plan_answer(
    config: Any,
    image: ImagePlan,
    run: RunSettings,
    prompt: PromptPlan,
    *,
    bytes_per_value: int = 2,
    later: bool = False,
) -> AnswerPlan:
    """Work out what one answer will cost on its own, image encoding included.

    Where the budget is `auto` or tiles are left out, that is what it costs at most: what a question needs of an image
    is known when that, or its thumbnail, was looked at.

    Args:
        config: as published: the vision tower with all its layers.
        image: from `plan_image`.
        run: budget, pruner and tiles.
        prompt: lengths of text and answer; all text behind the image counts as the question's own.
        bytes_per_value: of the key/value cache.
        later: charge what a further question about the image takes, answered together with the first: no encoding (the
            caller knows which tiles were there before), and
            of what their prompts share no prefill and no choice, on either side. Of a choice that is divided, what is
            shared depends on image and questions: here it is the least that it may be.

    Raises:
        InputError: fewer tokens than crops where each crop has a budget of its own.
    """
    whole, after, skipping = image, prompt.after, skips_tiles(config) and looks(str(run.tiles), image.crops - 1)
    image = image.with_tiles(str(run.tiles)) if skipping else image
    keep = run.pruned_to(image.visual, whole=whole.visual)
    tokens = TokenCounts(
        visual=whole.visual,
        kept=image.visual if keep is None else keep,
        from_saliency=None,
        from_similarity=None,
        from_both=None,
        text=prompt.text,
        generated=prompt.generated,
        crops=whole.crops,
        tiles=image.crops - 1,
        newlines=image.newlines if keep is None else 0,
    )
    accountant, score = Accountant.of(config, layers_that_run(config), bytes_per_value), 0
    if keep is not None:
        crops = image.crop_sizes if run.each_crop else ()
        score = accountant.selection(run, keep=keep, visual=image.visual, text=after, question=after, crops=crops)
    shared = prompt.before + _shared(run, tokens) if later and run.begins_alike and not skipping else 0
    if shared:
        scores = run.select != "question" and keep is not None and not run.by_image
        score = accountant.scoring(run, visual=image.visual, text=after) if scores else 0
    return AnswerPlan(
        tokens=tokens,
        flops=accountant.flops(
            tokens,
            packed=whole.packed,
            score=score + (accountant.look(after) if skipping else 0),
            crops=0 if later else image.crops,
            unpruned_crops=0 if later else whole.crops,
            shared=shared,
            shared_unpruned=prompt.before + whole.packed if later else 0,
        ),
        memory_bytes=accountant.memory(tokens, packed=whole.packed, peak=None),
    )


def _shared(run: RunSettings, tokens: TokenCounts) -> int:
    """Count the tokens of an image that a further question about it has prefilled already, at least."""
    return int(FLOOR * tokens.kept) if run.select == "split" else tokens.kept + tokens.newlines
