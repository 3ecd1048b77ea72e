"""Makes the settings of a sweep, and tells which of them come to the same for an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from adafv.pruners import FLOOR
from adafv.records import Question
from adafv.settings import Positions, RunSettings, Select


@dataclass(frozen=True)
class Asked:
    """Ask one question under some settings of a sweep, in their order.

    `strikes` is how often a server has died while it was at this question, in an earlier run.
    """

    question: Question
    runs: tuple[RunSettings, ...]
    strikes: int = 0


def unpruned(run: RunSettings) -> RunSettings:
    """Change settings to keep every visual token of every crop."""
    everything: dict[str, Any] = {"keep": "all", "pruner": "none", "positions": "compact", "crop_budget": "joint"}
    return replace(run, **everything, select="question", tiles="all")


def blind(run: RunSettings) -> RunSettings:
    """Change settings to keep no visual token: the prompt without its image."""
    return replace(unpruned(run), pruner=FLOOR)


def grid(
    run: RunSettings,
    pruners: Iterable[str],
    budgets: Iterable[str],
    positions: Iterable[Positions] = (),
    selects: Iterable[Select] = (),
) -> list[RunSettings]:
    """List the unpruned run, then every pruner at every budget with all positions and every select, each once.

    Args:
        run: whatever else is the same for all of them.
        pruners: their names; `none` adds nothing to the unpruned run.
        budgets: as in `RunSettings.keep`; nor does `all`.
        positions, selects: as in `RunSettings`; those of `run` where there are none.

    Raises:
        BudgetError, InputError: a value that cannot be used.
    """
    shares, places, selected = list(budgets), list(positions) or [run.positions], list(selects) or [run.select]
    pruned = [
        replace(run, keep=keep, pruner=pruner, positions=place, select=select)
        for pruner in pruners
        for select in selected
        for place in places
        for keep in shares
    ]
    return list(dict.fromkeys([unpruned(run), *(one for one in pruned if one.pruner != "none" and one.keep != "all")]))


@lru_cache(4096)
def effective(run: RunSettings, visual: int, known: int = 1, whole: int | None = None) -> RunSettings:
    """Reduce a run to what it does to a question: runs that would feed the same tokens of the same crops compare equal.

    Args:
        run: the settings.
        visual: N, tokens of its image.
        known: questions that are known about the image.
        whole: what N would be with all crops, as of `RunSettings.pruned_to`.
    """
    keep = run.pruned_to(visual, whole=whole)
    if keep is None and whole in (None, visual):
        return unpruned(run)
    if keep is None:  # places count in the whole image, where some of it is not there
        return replace(unpruned(run), positions=run.positions)
    if known < 2 or run.by_image:
        run = replace(run, select="question")
    run = replace(run, tiles="all")
    return run if run.budget.held is not None else replace(run, keep=keep)
