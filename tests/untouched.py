"""What a loaded model is made of, so that a test can tell whether something was left behind in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def anatomy(model: torch.nn.Module) -> dict[str, object]:
    """Attributes, hooks, weights and settings of a model and all its modules, to be compared with those of later."""
    found: dict[str, object] = {name: _attributes(module) for name, module in model.named_modules()}
    for name in ("config", "generation_config"):
        found[f"settings of {name}"] = str(getattr(model, name).to_dict())
    return found


def _attributes(module: torch.nn.Module) -> dict[str, object]:
    return {
        name: {key: _mark(part) for key, part in value.items()} if isinstance(value, Mapping) else _mark(value)
        for name, value in vars(module).items()
    }


def _mark(value: Any) -> object:
    """Tell values apart without holding them; offloading makes weights anew each time, on `meta`."""
    if isinstance(value, torch.Tensor):
        return (value.device, value.dtype, tuple(value.shape), value.data_ptr() if value.device.type != "meta" else 0)
    return value if isinstance(value, bool | int | str) else id(value)
