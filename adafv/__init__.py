"""AdaFV: text-aware, training-free pruning of LLaVA's visual tokens, with honest reports.

Importing this package imports no torch; the first attribute that needs it does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from adafv.budget import Budget
from adafv.errors import (
    AdaFVError,
    BudgetError,
    CheckpointError,
    DeviceError,
    ImageError,
    InputError,
    OutOfMemoryError,
)
from adafv.records import Answer, Question
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.versions import check_versions

if TYPE_CHECKING:
    from adafv.engine import Model, load
    from adafv.patching.context import pruned
    from adafv.pruners.adafv import select
    from adafv.wrapping import wrap

__version__ = "0.1.0"
__all__ = [
    "AdaFVError",
    "Answer",
    "BatchSettings",
    "Budget",
    "BudgetError",
    "CheckpointError",
    "DeviceError",
    "ImageError",
    "InputError",
    "LoadSettings",
    "Model",
    "OutOfMemoryError",
    "Question",
    "RunSettings",
    "load",
    "pruned",
    "select",
    "wrap",
]

_LAZY = {
    "Model": "adafv.engine",
    "load": "adafv.engine",
    "pruned": "adafv.patching.context",
    "select": "adafv.pruners.adafv",
    "wrap": "adafv.wrapping",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        if name != "select":  # for which any torch will do
            check_versions()
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'adafv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
