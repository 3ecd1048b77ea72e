"""Pruners of other packages, held to what a pruner promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from typing import TypeVar

import torch
from torch import Tensor

from adafv.errors import AdaFVError, InputError
from adafv.evidence import Evidence, Selection
from adafv.memory import is_out_of_memory
from adafv.pruners import READABLE, Pruner, Work

_T = TypeVar("_T")
_PROMISE = (
    "every row holds exactly `keep` distinct, ascending, valid indices; a merger's `into` names one of them for each "
    "candidate, or -1, and its `weights` are not negative and not all zero in any mean"
)


def load(point: EntryPoint) -> Pruner:
    """Load the pruner behind an entry point: a `Pruner`, or a bare function, which may look at everything.

    Raises:
        InputError: it cannot be imported, or is neither.
    """
    where = f"pruner {point.name} ({point.value})"
    try:
        found = point.load()
    except InputError as error:
        raise InputError(f"{where} is no pruner: {error.what}", error.fix) from error
    except Exception as error:
        what = f"{where} cannot be imported: {type(error).__name__}: {error}"
        raise InputError(what, "repair or uninstall the package that registers it") from error
    if not callable(found):
        what = f"{where} is a {type(found).__name__}, not a pruner"
        raise InputError(what, "register an adafv.pruners.Pruner or a function (evidence, keep) -> Selection")
    inner = found if isinstance(found, Pruner) else Pruner(found, READABLE)

    def checked(evidence: Evidence, keep: int) -> Selection:
        selection = _called(where, inner.select, evidence, keep)
        fault = _fault(selection, evidence, keep)
        if fault:
            raise InputError(f"{where} {fault}", _PROMISE)
        return selection

    def counted(work: Work) -> int:
        return int(inner.flops(work))

    return Pruner(checked, inner.reads, partial(_called, where, counted), inner.by_image)


def _called(where: str, function: Callable[..., _T], *args: object) -> _T:
    """Call, with a failure that says whose it is. Want of memory is the engine's to deal with."""
    try:
        return function(*args)
    except Exception as error:
        if isinstance(error, AdaFVError) or is_out_of_memory(error):
            raise
        what = f"{where} failed: {type(error).__name__}: {error}"
        raise InputError(what, "repair or uninstall the package that registers it") from error


def _fault(selection: Selection, evidence: Evidence, keep: int) -> str:
    """Tell what is wrong with a selection; empty when nothing is. Synchronises with the device."""
    if not isinstance(selection, Selection):
        return f"answered a {type(selection).__name__}, not a Selection"
    splits = (("by_saliency ", selection.by_saliency), ("by_similarity ", selection.by_similarity))
    masks = [(name, mask, torch.bool) for name, mask in splits if mask is not None]
    shape, indices = (len(evidence.valid), keep), selection.indices
    for name, tensor, dtype in [("", indices, torch.int64), *masks]:
        fault = _misfit(tensor, shape, dtype, evidence.valid.device)
        if fault:
            return f"answered {name}{fault}"
    if bool((indices[:, 1:] <= indices[:, :-1]).any()):
        return "answered indices that are not distinct and ascending"
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= evidence.valid.shape[1]):
        return f"answered indices outside of 0 to {evidence.valid.shape[1] - 1}"
    if not bool(evidence.valid.gather(1, indices).all()):
        return "kept padding"
    return "" if selection.into is None and selection.weights is None else _merging_fault(selection, evidence)


def _merging_fault(selection: Selection, evidence: Evidence) -> str:
    """Tell what is wrong with what is merged; empty when nothing is."""
    indices, into, weights, valid = selection.indices, selection.into, selection.weights, evidence.valid
    if into is None:
        return "answered weights without into"
    for name, tensor, dtype in (("into", into, torch.int64), ("weights", weights, torch.float32)):
        fault = "" if tensor is None else _misfit(tensor, (valid.shape[0], valid.shape[1]), dtype, valid.device)
        if fault:
            return f"answered {name} {fault}"
    return _astray(into, indices, valid) or ("" if weights is None else _weight_fault(into, weights, indices))


def _astray(into: Tensor, indices: Tensor, valid: Tensor) -> str:
    """Tell which candidate goes where it cannot; empty when none does."""
    kept = torch.zeros_like(valid).scatter_(1, indices, True)
    outside, last = (into < -1) | (into >= valid.shape[1]), valid.shape[1] - 1
    if bool(outside.any()):
        return f"merges into {int(into[outside][0])}, which is outside of -1 to {last}"
    if bool((into >= 0)[~valid].any()):
        return "merges padding"
    lost = (into >= 0) & ~kept.gather(1, into.clamp(min=0))
    if bool(lost.any()):
        return f"merges into {int(into[lost][0])}, which it does not keep"
    elsewhere = into.gather(1, indices) != indices
    return (
        f"does not merge {int(indices[elsewhere][0])} into itself, though it keeps it" if bool(elsewhere.any()) else ""
    )


def _weight_fault(into: Tensor, weights: Tensor, indices: Tensor) -> str:
    used = weights.masked_fill(into < 0, 0.0)
    bad = used[~torch.isfinite(used) | (used < 0)]
    if len(bad):
        return f"answered a weight of {bad[0].item():g}"
    sums = torch.zeros_like(used).scatter_add_(1, into.clamp(min=0), used).gather(1, indices)
    empty = indices[sums <= 0]
    return f"answered weights that sum to nothing for what is merged into {int(empty[0])}" if len(empty) else ""


def _misfit(found: object, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> str:
    """Tell how something differs from a tensor of that kind; empty when it does not."""
    if not isinstance(found, torch.Tensor):
        return f"a {type(found).__name__}, not a tensor"
    if tuple(found.shape) != shape or found.dtype != dtype:
        return f"{tuple(found.shape)} {found.dtype}, not {shape} {str(dtype).removeprefix('torch.')}"
    if found.device != device:
        return f"a tensor on {found.device}, not on {device} like the evidence"
    return ""
