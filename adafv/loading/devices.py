"""Which devices there are, where each module of a model goes, and what to say when that cannot be."""

from __future__ import annotations

import difflib
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import CustomDtype, get_balanced_memory, get_max_memory
from torch import nn

from adafv.errors import DeviceError, cut
from adafv.families.hooks import accelerator
from adafv.settings import LoadSettings

Placement = dict[str, int | str]

_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
_SPARE = 0.9  # of the memory that a plan may fill: the rest is for activations and cache
_LAST_NORM = "model.language_model.norm"
_NEWLINE = "model.image_newline"  # of mosaics; a bare parameter, so that no hook brings it back from the disk


def check_devices(settings: LoadSettings) -> None:
    """Refuse devices that are not there before anything is loaded.

    Raises:
        DeviceError: names the device and what there is instead, or an offload folder that cannot be written to.
    """
    asked = [settings.device_map] if isinstance(settings.device_map, str) else settings.device_map.values()
    for device in asked:
        if device not in (*_STRATEGIES, "disk"):
            _check_device("device_map", device)
    for device in settings.max_memory or ():
        if device != "disk":
            _check_device("max_memory", device)
    if settings.offload_folder is not None:
        _check_folder(Path(settings.offload_folder))


def device_of(rank: int, processes: int) -> str:
    """Choose the device of one of several processes on this machine.

    Args:
        rank: its number, from 0.
        processes: how many there are.

    Raises:
        DeviceError: there are accelerators, but fewer than processes.
    """
    kind = accelerator()
    count = torch.accelerator.device_count() if kind else 0
    if kind and count < processes:
        what = f"{processes} processes were started, and there {'is' if count == 1 else 'are'} {count} {kind} device(s)"
        raise DeviceError(what, f"start {count} (--nproc-per-node {count}), or share them with --device-map {kind}:0")
    return f"{kind}:{rank}" if kind else "cpu"


def _check_folder(folder: Path) -> None:
    """See that weights can be written there, or where it will be made, and leave nothing behind."""
    try:
        there = next(part for part in (folder, *folder.absolute().parents) if part.exists())
        with TemporaryFile(dir=there):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"offload_folder: {cut(str(folder))} cannot be written to: {reason}"
        raise DeviceError(what, "give a folder that can (--offload-folder)") from error


def _check_device(setting: str, name: int | str) -> None:
    there = ", ".join(_available())
    try:
        device = torch.device(f"{accelerator() or 'cuda'}:{name}" if isinstance(name, int) else name)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"{setting}: {name!r} is no device", f"use one of auto, {there}") from error
    if device.type == "cpu":
        return
    if device.type != accelerator():
        raise DeviceError(f"{setting}: {name} was asked for, but there is no {device.type} device", f"use {there}")
    if device.index is not None and device.index >= torch.accelerator.device_count():
        raise DeviceError(f"{setting}: there is no {name}", f"use one of {there}")


def _available() -> list[str]:
    kind = accelerator()
    return ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count() if kind else 0))]


def on_cpu_only(settings: LoadSettings) -> bool:
    """Tell whether every weight will be used on the CPU."""
    asked = settings.device_map
    if accelerator() is None or asked in ("cpu", "disk"):
        return True
    if isinstance(asked, str):
        return asked in _STRATEGIES and bool(settings.max_memory) and set(settings.max_memory or ()) <= {"cpu", "disk"}
    return set(asked.values()) <= {"cpu", "disk"}


def place(model: Any, settings: LoadSettings, dtype: torch.dtype) -> str | Placement:
    """Choose the device map to load with.

    Args:
        model: without weights, on the meta device.
        settings: what was asked for.
        dtype: that the weights will have.

    Raises:
        DeviceError: a map that names unknown modules or leaves some out.
    """
    asked = settings.device_map
    if isinstance(asked, str) and asked not in (*_STRATEGIES, "disk"):
        return asked
    if isinstance(asked, str):
        placement: Placement = {"": "disk"} if asked == "disk" else _planned(model, asked, settings, dtype)
    else:
        placement = dict(asked)
        _check_names(model, placement)
    for name in list(placement):
        _separate(model, placement, name)
    _check_blocks(model, placement)
    return _pinned(model, placement)


def _planned(model: Any, strategy: str, settings: LoadSettings, dtype: torch.dtype) -> Placement:
    limits = dict(settings.max_memory) if settings.max_memory else None
    sizes: dict[str, Any] = {
        "no_split_module_classes": list(model._no_split_modules or ()),
        "dtype": dtype,
        "special_dtypes": _quantized_sizes(model, settings.quantize),
    }
    try:
        if strategy == "sequential":
            memory = get_max_memory(limits)
        else:
            memory = get_balanced_memory(model, limits, low_zero=strategy == "balanced_low_0", **sizes)
    except ValueError as error:
        raise DeviceError(f"max_memory: {error}", 'give sizes such as "20GiB"') from error
    if limits is None and "cpu" in memory:
        memory["cpu"] = int(memory["cpu"] * _SPARE)
    if settings.quantize:  # quantizing needs buffers
        memory = {device: int(size * _SPARE) for device, size in memory.items()}
    return dict(infer_auto_device_map(model, memory, **sizes))


def _quantized_sizes(model: Any, quantize: str | None) -> dict[str, Any]:
    """Types that have the sizes of what bitsandbytes will hold."""
    kind = {"int8": torch.int8, "int4": CustomDtype.INT4}.get(quantize or "")
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return {f"{name}.weight": kind for name in linear if kind and name.startswith("model.language_model.")}


def _check_names(model: Any, placement: Placement) -> None:
    known = {name for name, _ in model.named_modules()} | {name for name, _ in _own(model.model, "model")}
    for name in placement:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) or ["model.language_model.layers.0"]
            raise DeviceError(f"device_map: the model has no module {name!r}", f"perhaps {close[0]!r} is meant")
    named = (*placement, _NEWLINE)
    left = [name for name, _ in model.named_parameters() if not any(_holds(key, name) for key in named)]
    if left:
        raise DeviceError(
            f"device_map: {len(left)} tensors are left without a device, the first is {left[0]}",
            'add its module, or "" for all that is not named',
        )


def _check_blocks(model: Any, placement: Placement) -> None:
    """Refuse to tear a layer apart: it adds its input to its output."""
    for block, module in model.named_modules():
        inside = {key: device for key, device in placement.items() if key != block and _holds(block, key)}
        if block and type(module).__name__ in (model._no_split_modules or ()) and len(set(inside.values())) > 1:
            raise DeviceError(f"device_map: {block} is spread over several devices", f"give one device for {block!r}")


def _holds(module: str, name: str) -> bool:
    return module in ("", name) or name.startswith(f"{module}.")


def _own(module: nn.Module, name: str) -> list[tuple[str, Any]]:
    """List what a module is made of, one level down: modules and bare tensors, under their full names."""
    parts = chain(module.named_children(), module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    return [(f"{name}.{part}" if name else part, held) for part, held in parts]


def _separate(model: Any, placement: Placement, name: str) -> None:
    """Replace entries for modules around `name` by entries for their parts, until none holds another.

    Otherwise transformers sends `layers.10` where `layers.1` goes: it compares the beginnings of names.
    """
    while around := [key for key in placement if key != name and _holds(key, name)]:
        device = placement.pop(around[0])
        for part, _ in _own(model.get_submodule(around[0]), around[0]):
            placement.setdefault(part, device)


def _pinned(model: Any, placement: Placement) -> Placement:
    """Keep in memory what has to be there, wherever the rest is offloaded to.

    Image newlines are read where no hook watches. Of a model that goes to the disk as a whole the last norm is kept
    (a few kB): accelerate before 1.15 puts no hooks on a model of one device.
    """
    if set(placement.values()) == {"disk"}:
        placement = _moved(model, placement, _LAST_NORM)
    if not hasattr(model.model, "image_newline"):
        return placement
    offloaded = {"disk"} if set(placement.values()) <= {"cpu", "disk"} else {"cpu", "disk"}
    holder = next((key for key in placement if _holds(key, _NEWLINE)), None)
    return (
        placement if holder is not None and placement[holder] not in offloaded else _moved(model, placement, _NEWLINE)
    )


def _moved(model: Any, placement: Placement, name: str) -> Placement:
    """Place `name` on the CPU, everything else as it was."""
    _separate(model, placement, name)
    return placement | {name: "cpu"}
