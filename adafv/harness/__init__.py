"""Makes adafv a model of evaluation harnesses; nothing here is imported but by them."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

_TRIED = "0.7."


def manifest() -> Any:
    """Describe the model to lmms-eval, which finds this by its entry-point group `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    found = version("lmms-eval")
    if not found.startswith(_TRIED):
        said = f"adafv was tried with lmms-eval {_TRIED}x, this is {found}: if it fails, pip install 'adafv[lmms-eval]'"
        warnings.warn(said, stacklevel=2)
    return ModelManifest(model_id="adafv", simple_class_path="adafv.harness.lmms_eval.AdaFV")
