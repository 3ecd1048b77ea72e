"""Looks at the machine, and says how each subject of a bench is made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from adafv.bench.geometries import GEOMETRIES
from adafv.bench.machine import probe
from adafv.bench.random_weights import fits
from adafv.bench.records import Bench
from adafv.bench.subject import Subject
from adafv.bench.suite import Plan, Subjects, attentions
from adafv.errors import InputError, shown
from adafv.families.hooks import accelerator
from adafv.loading.devices import check_devices
from adafv.settings import LoadSettings

AUTO = ("llava-1.5-7b", "llava-0.8b", "tiny")  # the first that fits


def prepare(
    settings: LoadSettings, geometries: Sequence[str], images: Sequence[str] | None, plan: Plan
) -> tuple[Bench, Subjects]:
    """Probe the machine.

    Args:
        settings: of the checkpoint; of random weights, device and dtype, of which `auto` takes what this machine
            multiplies faster.
        geometries: of random weights; none takes the first of `AUTO` that fits.
        images: to ask the checkpoint about; `None` for random weights.
        plan: what will be measured.

    Returns:
        An empty bench, and the subjects that `suite.run` builds one after the other.

    Raises:
        DeviceError: a device that is not there.
        InputError: random weights over several devices.
    """
    check_devices(settings)
    device = _device(settings)
    machine = probe(device)
    found = Bench(machine, {"attention": settings.attention})
    if images is not None:
        found.settings |= {"model": settings.model, "images": list(images)}
        return found, [(settings.model, partial(Subject.loaded, settings, images, plan.pictures))]
    fastest = torch.bfloat16 if device.type != "cpu" else machine.fastest()
    dtype: torch.dtype = fastest if settings.dtype == "auto" else getattr(torch, settings.dtype)
    names = list(geometries) or [next(one for one in AUTO if one == AUTO[-1] or fits(GEOMETRIES[one], dtype, device))]
    found.settings |= {"geometry": names, "dtype": str(dtype).removeprefix("torch.")}
    kernels = list(attentions(device)) if settings.attention == "sdpa" else [settings.attention]
    return found, [
        (
            name if kernel == "sdpa" else f"{name}, {kernel}",
            partial(Subject.random, GEOMETRIES[name], dtype, device, kernel, plan.pictures),
        )
        for name in names
        for kernel in kernels
    ]


def _device(settings: LoadSettings) -> torch.device:
    """Find the device whose rates are the bounds: the one that random weights lie on."""
    asked = settings.device_map
    if asked == "auto":
        kind = accelerator()
        return torch.device(kind, 0) if kind else torch.device("cpu")
    try:
        return torch.device(asked if isinstance(asked, str) else "several")
    except RuntimeError:
        what = f"device_map: {shown(asked)} is no single device"
        raise InputError(what, "a bench takes auto, cpu, cuda or cuda:1") from None
