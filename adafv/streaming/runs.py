"""Makes the settings of a sweep, and tells which of them come to the same for an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from adafv.records import Question
from adafv.settings import RunSettings


@dataclass(frozen=True)
class Asked:
    """Ask one question under some settings of a sweep, in their order."""

    question: Question
    runs: tuple[RunSettings, ...]


def unpruned(run: RunSettings) -> RunSettings:
    """Change settings to keep every visual token."""
    return replace(run, keep="all", pruner="none")


def grid(run: RunSettings, pruners: Iterable[str], budgets: Iterable[str]) -> list[RunSettings]:
    """List the unpruned run, then every pruner at every budget, each once.

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
    """Reduce a run to what it does to an image of N visual tokens: runs that would feed the same ones compare equal."""
    keep = run.budget.tokens(visual)
    whole = run.pruner == "none" or keep >= visual
    return unpruned(run) if whole else replace(run, keep=keep)
