"""Which devices there are, and what to say when one is not."""

from __future__ import annotations

from typing import Any

import torch

from adafv.errors import DeviceError
from adafv.settings import LoadSettings

_PLANS = ("auto", "balanced", "balanced_low_0", "sequential")


def check_devices(settings: LoadSettings) -> None:
    """Refuse devices that are not there before anything is loaded.

    Raises:
        DeviceError: names the device and what there is instead.
    """
    asked = [settings.device_map] if isinstance(settings.device_map, str) else settings.device_map.values()
    for device in asked:
        if device not in (*_PLANS, "disk"):
            _check_device(f"cuda:{device}" if isinstance(device, int) else device)


def _check_device(name: str) -> None:
    there = ", ".join(_available())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device_map: {name!r} is no device", f"use one of auto, {there}") from error
    if device.type == "cpu":
        return
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None or accelerator.type != device.type:
        raise DeviceError(f"device_map: {name} was asked for, but there is no {device.type} device", f"use {there}")
    if device.index is not None and device.index >= torch.accelerator.device_count():
        raise DeviceError(f"device_map: there is no {name}", f"use one of {there}")


def _available() -> list[str]:
    if not torch.accelerator.is_available():
        return ["cpu"]
    accelerator = torch.accelerator.current_accelerator()
    kind = accelerator.type if accelerator is not None else "cpu"
    return ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]


def on_cpu_only(settings: LoadSettings) -> bool:
    """Whether every weight will be held and used on the CPU."""
    if not torch.accelerator.is_available():
        return True
    asked = settings.device_map
    return asked == "cpu" or (not isinstance(asked, str) and set(asked.values()) <= {"cpu", "disk"})


def execution_device(module: Any) -> torch.device:
    """Where a module computes: its weights' device, or under offloading its hook's (the weights are on `meta`)."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return torch.device(device if not isinstance(device, int) else f"cuda:{device}")
    for parameter in module.parameters():
        if parameter.device.type != "meta":
            device = parameter.device
            return torch.device(device)
    return execution_device(next(module.children()))
