"""The registry of pruners: a name, and the module whose `select` implements it.

A pruner is a callable `(Evidence, keep) -> Selection` on tensors alone; it never sees a model. Adding one
takes one file here and one line below.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from adafv.errors import InputError

if TYPE_CHECKING:
    from adafv.evidence import Evidence, Selection

    Pruner = Callable[[Evidence, int], Selection]

REGISTRY = {
    "adafv": "adafv.pruners.adafv",
    "saliency": "adafv.pruners.saliency",
    "similarity": "adafv.pruners.similarity",
    "uniform": "adafv.pruners.uniform",
    "random": "adafv.pruners.random",
    "none": "adafv.pruners.none",
}


def names() -> tuple[str, ...]:
    """Every pruner's name, the default first. Imports no torch."""
    return tuple(REGISTRY)


def check(name: str) -> None:
    """Raise `InputError` when there is no pruner of that name."""
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"pruner: {name!r} is unknown", f"{hint}choose from {', '.join(REGISTRY)}")


def get(name: str) -> Pruner:
    """The pruner of that name.

    Raises:
        InputError: there is none.
    """
    check(name)
    pruner: Pruner = importlib.import_module(REGISTRY[name]).select
    return pruner
