"""Names the setting that others are compared with, besides the unpruned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adafv.quality.sheet import COMPACT, QUESTION


@dataclass(frozen=True)
class Reference:
    """The setting that others are compared with.

    Args:
        pruner: its name.
        keep: its budget; `None` stands for the budget of whatever is compared.
    """

    pruner: str
    keep: str | None = None

    def __str__(self) -> str:
        return self.pruner if self.keep is None else f"{self.pruner}@{self.keep}"

    def place(self, settings: Sequence[tuple[str, ...]], one: tuple[str, ...]) -> int | None:
        """Find the column to compare a setting with; `None` for the unpruned, for itself, and where there is none.

        That is of the same positions and select as the setting, or, where that is the setting itself, of the defaults.
        """
        pruner, keep, *rest = one
        wanted = (self.pruner, self.keep or keep, *rest)
        if wanted == tuple(one):
            wanted = (*wanted[:2], *(COMPACT, QUESTION)[: len(rest)])
        found = [place for place, setting in enumerate(settings) if tuple(setting) == wanted]
        return found[0] if found and pruner != "none" and wanted != tuple(one) else None
