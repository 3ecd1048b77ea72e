"""Adds up what the questions of an input will cost, by the checkpoint's configuration and assumed lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from adafv.budget import Budget
from adafv.pruners import TWO_LISTS
from adafv.settings import SELECTS, RunSettings

# Lengths cannot be known without the tokenizer and the model, so that they are assumed, and said to be.
TEMPLATE_BEFORE, TEMPLATE_AFTER = 35, 8
LETTERS_PER_TOKEN = 4
GENERATED = 16

_REMEMBERED = 4_096  # lengths that are not worked out again


@dataclass(frozen=True)
class Cost:
    """Of one answer: visual tokens, and FLOPs apart from the image's encoding; with `bound` the most it may come to.

    `encoding` is that of one crop; of the image's `whole` ones a question wants `crops`, the thumbnail among them.
    `later` and `unpruned_later` are the FLOPs of a further question about the image, with what it shares prefilled;
    `shares` says whether this run's does share it, and so is compared with an unpruned one that does. `selects` are
    the FLOPs of a further question under each `--select` that there is a choice between.
    """

    visual: int
    kept: int
    bound: bool
    text: int
    encoding: int
    answering: int
    unpruned_answering: int
    later: int
    unpruned_later: int
    shares: bool
    crops: int
    whole: int
    selects: Mapping[str, int] = field(default_factory=dict)


CostOf = Callable[[int, int, int, Budget | None], Cost]


@dataclass
class Estimate:
    """What the lines that can be answered add up to. `images` are different ones, by path.

    `shared_unpruned_flops` are those of all tokens where an image is prefilled once for all its questions. Against
    that, pruning has `gained` so many FLOPs, were every question the first about its image, and `lost`, were none.
    `selects` are the FLOPs of all questions under each `--select`.
    """

    questions: int = 0
    images: int = 0
    crops: int = 0
    visual: int = 0
    kept: int = 0
    bound: bool = False
    text: int = 0
    flops: int = 0
    unpruned_flops: int = 0
    shared_unpruned_flops: int = 0
    gained: int = 0
    lost: int = 0
    selects: dict[str, int] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)  # crops that are encoded by then, at most

    def add(self, cost: Cost, image: str | bytes) -> None:
        """Count a question; an image is encoded with the first question about it."""
        key = hash(image)  # 64 bits, of this process
        before = self._seen.get(key, 0)
        fresh, now = not before, min(cost.whole, max(1, before) + cost.crops - 1)
        self._seen[key] = now
        self.questions += 1
        self.images += fresh
        self.crops += now - before
        self.visual += cost.visual
        self.kept += cost.kept
        self.bound = self.bound or cost.bound
        self.text += cost.text
        encoding, unpruned = cost.encoding * (now - before), cost.encoding * cost.whole * fresh
        shared_unpruned = cost.unpruned_answering if fresh else cost.unpruned_later
        self.flops += encoding + (cost.answering if fresh else cost.later)
        self.unpruned_flops += unpruned + (shared_unpruned if cost.shares else cost.unpruned_answering)
        self.shared_unpruned_flops += unpruned + shared_unpruned
        self.gained += cost.unpruned_answering - cost.answering
        self.lost += cost.later - cost.unpruned_later
        for name, later in cost.selects.items():
            self.selects[name] = self.selects.get(name, 0) + encoding + (cost.answering if fresh else later)

    @property
    def break_even(self) -> int | None:
        """Questions about an image from which on all tokens, prefilled once, cost less; `None` where they never do."""
        return None if self.lost <= 0 else max(1, self.gained // self.lost + 2)


def generated(run: RunSettings) -> int:
    """Assume the tokens of an answer."""
    return min(GENERATED, run.max_new_tokens)


def costs_of(config: Any, run: RunSettings) -> CostOf:
    """Make a function of an image's width and height, the tokens of a question and its own budget."""
    from adafv.costs.plan import PromptPlan, plan_answer, plan_image, skips_tiles
    from adafv.tiles import looks

    divides = run.pruner in TWO_LISTS and not run.each_crop
    choices = [] if run.by_image or run.tiles != "all" else [name for name in SELECTS if name != "split" or divides]
    others = {name: replace(run, select=name) for name in choices}

    @lru_cache(_REMEMBERED)
    def cost(width: int, height: int, text: int, keep: Budget | None) -> Cost:
        image = plan_image(config, height, width)
        prompt = PromptPlan(TEMPLATE_BEFORE, TEMPLATE_AFTER + text, generated(run))
        plan, later = (plan_answer(config, image, run.keeping(keep), prompt, later=one) for one in (False, True))
        crops, whole = (plan.tokens.tiles or 0) + 1, plan.tokens.crops
        encoding = (plan.flops.vision + plan.flops.projector) // crops
        pruned = plan.tokens.kept < plan.tokens.visual
        under = {
            name: plan_answer(config, image, one.keeping(keep), prompt, later=True).flops
            for name, one in others.items()
        }
        return Cost(
            visual=plan.tokens.visual,
            kept=plan.tokens.kept,
            bound=run.keeping(keep).budget.held is not None
            or (skips_tiles(config) and looks(str(run.tiles), whole - 1)),
            text=plan.tokens.text,
            encoding=encoding,
            answering=plan.flops.total - encoding * crops,
            unpruned_answering=plan.flops.unpruned_total - encoding * whole,
            later=later.flops.total if pruned else later.flops.unpruned_total,  # a budget may keep all of an image
            unpruned_later=later.flops.unpruned_total,
            shares=run.begins_alike or not pruned,
            crops=crops,
            whole=whole,
            selects={name: flops.total if pruned else flops.unpruned_total for name, flops in under.items()},
        )

    return cost
