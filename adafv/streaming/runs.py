"""Several settings for one stream of questions: the grid of a sweep, and which of its settings are the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from adafv.records import Question
from adafv.settings import RunSettings


@dataclass(frozen=True)
class Asked:
    """A question, and the settings of a sweep that it is still to be answered under, in their order."""

    question: Question
    runs: tuple[RunSettings, ...]


def unpruned(run: RunSettings) -> RunSettings:
    """The same with every visual token."""
    return replace(run, keep="all", pruner="none")


def grid(run: RunSettings, pruners: Iterable[str], budgets: Iterable[str]) -> list[RunSettings]:
    """The unpruned run, then every pruner at every budget, each once.

    Args:
        run: whatever else is the same for all of them.
        pruners: their names; `none` adds nothing to the unpruned run.
        budgets: as in `RunSettings.keep`; nor does `all`.

    Raises:
        BudgetError, InputError: a value that cannot be used.
    """
    shares = list(budgets)
    found: dict[tuple[object, ...], RunSettings] = {("none", None, None): unpruned(run)}
    for pruner in pruners:
        for keep in shares:
            chosen = replace(run, keep=keep, pruner=pruner)
            budget = chosen.budget  # 25% and 25.0% are one
            if pruner != "none" and budget.text != "all":
                found.setdefault((pruner, budget.count, budget.share), replace(chosen, keep=budget.text))
    return list(found.values())


@lru_cache(4096)
def effective(run: RunSettings, visual: int) -> RunSettings:
    """What a run comes to for an image with `visual` candidates: equal results for runs that do the same."""
    keep = run.budget.tokens(visual)
    whole = run.pruner == "none" or keep >= visual
    return unpruned(run) if whole else replace(run, keep=keep)
