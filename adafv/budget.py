"""Budget: how many visual tokens of an image are kept."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from adafv.errors import BudgetError, shown

_FIX = "give a number of visual tokens (128), a share of the image's own (25%), auto (or auto:90%), or all"
_COUNT = re.compile(r"[0-9]{1,18}")
_SHARE = re.compile(r"(auto:)?([0-9]{1,18}(?:\.[0-9]{1,18})?)%")

HELD = Fraction(90, 100)  # of the evidence, where `auto` does not say how much
LEAST, MOST = Fraction(1, 64), Fraction(3, 8)  # of the image's own tokens, between which `auto` chooses


@dataclass(frozen=True)
class Budget:
    """A budget: `128`, `25%`, `auto`, `auto:90%` or `all`, in one form for each (`25.0%` is `25%`).

    Exactly one of `count`, `share` and `held` is set, or none for `all`. `held` is the share of the evidence that
    `adafv.pruners.auto_budget` keeps, of each image and question by itself.
    """

    text: str
    count: int | None = None
    share: Fraction | None = None
    held: Fraction | None = None

    @classmethod
    def parse(cls, keep: str | int | Budget) -> Budget:
        """Read a budget.

        Args:
            keep: `128` (visual tokens per image, all crops together), `"25%"` (of the image's own), `"auto"` or
                `"auto:90%"` (as few as hold that share of the evidence), `"all"`.

        Raises:
            BudgetError: not of that form, zero, negative, or more than 100 %.
        """
        if isinstance(keep, Budget):
            return keep
        if isinstance(keep, bool):
            raise BudgetError(f"keep: {keep!r} is no budget", _FIX)
        text = str(keep).strip().lower()
        if text == "all":
            return cls(text)
        if text == "auto":
            return cls(text, held=HELD)
        if _COUNT.fullmatch(text):
            count = int(text)
            if count < 1:
                raise BudgetError(f"keep: {keep} keeps no visual token", _FIX)
            return cls(str(count), count=count)
        match = _SHARE.fullmatch(text)
        if match is None:
            raise BudgetError(f"keep: {shown(str(keep))} is no budget", _FIX)
        share = Fraction(match[2]) / 100
        if not 0 < share <= 1:
            raise BudgetError(f"keep: {keep} is not between 0% and 100%", _FIX)
        return cls(f"auto:{_share_text(share)}", held=share) if match[1] else cls(_share_text(share), share=share)

    def tokens(self, visual: int) -> int:
        """Visual tokens to keep of an image that has `visual` candidates: at least 1, at most all; of `auto` the most.

        A share is rounded half up, in exact arithmetic, so that `25%` of 2880 is 720 everywhere.
        """
        if self.count is not None:
            return min(self.count, visual)
        if self.share is not None:
            half = self.share.denominator  # in whole numbers, which are asked for often
            return max(1, (2 * self.share.numerator * visual + half) // (2 * half))
        return bounds(visual)[1] if self.held is not None else visual


def bounds(visual: int) -> tuple[int, int]:
    """Tell the fewest and the most tokens that `auto` keeps of an image that has `visual` candidates."""
    return max(1, math.ceil(LEAST * visual)), max(1, math.ceil(MOST * visual))


def _share_text(share: Fraction) -> str:
    """Write a share in percent, without zeros that say nothing."""
    whole, part = divmod(share * 100, 1)
    digits = f"{int(part * 10**18):018d}".rstrip("0")
    return f"{whole}.{digits}%" if digits else f"{whole}%"
