"""The registry of pruners.

A pruner is a callable `(Evidence, keep) -> Selection` on tensors alone; it never sees a model. Adding one takes one
file here, whose `PRUNER` it is, its name below, and what CONTRIBUTING.md lists. Other packages add theirs under the
entry point `adafv.pruners`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from adafv.errors import InputError, shown

if TYPE_CHECKING:
    from adafv.evidence import Evidence, Selection

BUILT_IN = (
    "adafv", "saliency", "similarity", "divprune", "cdpruner", "scope", "mmtok", "visionzip", "pool", "uniform",
    "random", "none",
)  # fmt: skip
TWO_LISTS = ("adafv",)  # choose by saliency, and of the rest what matches the text best, and say which is which
FLOOR = "blind"  # what an answer without the image is reported as: of no use to anybody but a sweep, so in no list
GROUP = "adafv.pruners"
READABLE = frozenset({"text", "tokens", "features", "keys"})


@dataclass(frozen=True)
class Work:
    """What a pruner's cost depends on.

    Args:
        visual: N, candidates of the image.
        keep: K, the budget.
        question: text tokens that are the question's own.
        hidden: D, width of a visual token.
        features: C, width of the vision tower's features.
        keys: C', width of its keys.
    """

    visual: int
    keep: int
    question: int
    hidden: int
    features: int
    keys: int = 0


def _nothing(_work: Work) -> int:
    return 0


@dataclass(frozen=True)
class Pruner:
    """A way to choose visual tokens, and perhaps to merge others into them.

    Args:
        select: `(evidence, keep)` to the `keep` tokens kept of each image, where `keep` is less than any image has;
            those that come with adafv are tested to keep all of one when asked to, as well.
        reads: which parts of the evidence it looks at, of `text` (cosine and similarity), `tokens`, `features` and
            `keys`. What it does not look at is neither computed nor charged.
        flops: cost of selecting for one image, in closed form; a merger's has `adafv.flops.merge` in it. The similarity
            matrix is counted separately, as `score`.
        by_image: whether it goes by the image alone: all questions about one get the same tokens, which are chosen once
            for those that are answered together.
    """

    select: Callable[[Evidence, int], Selection]
    reads: Set[str] = frozenset()
    flops: Callable[[Work], int] = _nothing
    by_image: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.reads) - READABLE
        if unknown:
            what = f"a pruner reads {', '.join(sorted(unknown))}, which is no part of the evidence"
            raise InputError(what, f"choose from {', '.join(sorted(READABLE))}")
        if self.by_image and "text" in self.reads:
            raise InputError("a pruner reads text, and goes by the image alone", "leave by_image out")

    def __call__(self, evidence: Evidence, keep: int) -> Selection:
        """Choose."""
        return self.select(evidence, keep)


def names() -> tuple[str, ...]:
    """List every pruner's name, the default first, those of other packages last. Imports no torch."""
    return (*BUILT_IN, *_others())


def check(name: str) -> None:
    """Raise `InputError` when there is no pruner of that name."""
    if name not in (*BUILT_IN, FLOOR) and name not in _others():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"pruner: {shown(name)} is unknown", f"{hint}choose from {', '.join(names())}")


@cache
def get(name: str) -> Pruner:
    """Get the pruner of that name.

    Raises:
        InputError: there is none, or another package's cannot be used.
    """
    check(name)
    if name in (*BUILT_IN, FLOOR):
        pruner: Pruner = importlib.import_module(f"adafv.pruners.{name.replace('-', '_')}").PRUNER
        return pruner
    from adafv.pruners.foreign import load

    return load(_others()[name])


@cache
def _others() -> dict[str, EntryPoint]:
    """Pruners that other installed packages registered; a name of ours stays ours."""
    return {found.name: found for found in entry_points(group=GROUP) if found.name not in (*BUILT_IN, FLOOR)}
