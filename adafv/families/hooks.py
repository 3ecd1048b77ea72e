"""Looks into modules that may be wrapped by accelerate: what they compute, and on which device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from adafv.errors import DeviceError


class _Enough(Exception):
    """Ends a forward whose later modules nobody needs."""


@contextmanager
def recording(modules: Mapping[str, nn.Module], last: nn.Module | None = None) -> Iterator[dict[str, Tensor]]:
    """Record what modules output while the `with` lasts, whatever the attention kernel and wherever they run.

    Args:
        modules: by the names under which their outputs are wanted; one may have several.
        last: ends the forward that runs it, and with that the `with`: modules behind it are not run. They need not be
            taken out of the model, whose forwards may be bound to it by accelerate's hooks.

    Yields:
        The outputs, filled in as this thread runs the modules.
    """
    recorded: dict[str, Tensor] = {}
    thread = threading.get_ident()  # others may run the same model meanwhile

    def keep(name: str) -> Callable[[Any, Any, Tensor], None]:
        def hook(_module: Any, _args: Any, output: Tensor) -> None:
            if threading.get_ident() == thread:
                recorded[name] = output

        return hook

    def end(_module: Any, _args: Any, _output: Tensor) -> None:
        if threading.get_ident() == thread:
            raise _Enough

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    if last is not None:
        handles.append(last.register_forward_hook(end))
    try:
        with suppress(_Enough):
            yield recorded
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def in_one_piece(module: nn.Module) -> Iterator[None]:
    """Give a linear layer its input in one piece while the `with` lasts: a copy with the same numbers.

    Of a (B, 1, D) slice, which is what an LM head gets in a prefill, `torch.nn.functional.linear` makes B products,
    each of which reads all weights, and for bfloat16 on a CPU copies them first.
    """

    def hook(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Not `contiguous`: that leaves a single row its strides, which `linear` looks at.
        return tuple(one.clone(memory_format=torch.contiguous_format) for one in args)

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
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
