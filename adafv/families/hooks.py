"""Looks into modules that may be wrapped by accelerate: what they compute, and on which device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adafv.errors import DeviceError


@contextmanager
def recording(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Record what modules output while the `with` lasts, whatever the attention kernel and wherever they run.

    Args:
        modules: by the names under which their outputs are wanted; one may have several.

    Yields:
        The outputs, filled in as the modules run.
    """
    recorded: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any, Any, Tensor], None]:
        def hook(_module: Any, _args: Any, output: Tensor) -> None:
            recorded[name] = output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def execution_device(module: nn.Module) -> torch.device:
    """Tell where a module computes: its weights' device, or under offloading its hook's (weights are on `meta`).

    Raises:
        DeviceError: a module without weights and hooks.
    """
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            device = getattr(one, "execution_device", None)
            if device is not None:
                return torch.device(f"{accelerator()}:{device}" if isinstance(device, int) else device)
        for tensor in part.parameters(recurse=False):
            if tensor.device.type != "meta":
                return torch.device(tensor.device)
    raise DeviceError(f"{type(module).__name__} is on no device", "load the checkpoint with another --device-map")


def accelerator() -> str | None:
    """Name the kind of accelerator: `cuda`, `mps`, `xpu`, ... or `None` on a machine that has none."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found is not None else None
