"""The registry of pruners.

A pruner is a callable `(Evidence, keep) -> Selection` on tensors alone; it never sees a model. Adding one takes one
file here, whose `select` it is, and one line below.
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

# Name -> whether it looks at the text: where it does not, similarity is neither computed nor charged.
REGISTRY = {
    "adafv": True,
    "saliency": False,
    "similarity": True,
    "uniform": False,
    "random": False,
    "none": False,
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
    pruner: Pruner = importlib.import_module(f"adafv.pruners.{name}").select
    return pruner


def looks_at_text(name: str) -> bool:
    """Whether the pruner of that name needs text-to-image similarity."""
    return REGISTRY[name]
