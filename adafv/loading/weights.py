"""Refuses weights that are not the model's: transformers fills gaps at random, and says so in its report alone."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils.logging import set_tqdm_hook

from adafv.errors import CheckpointError
from adafv.families import FAMILIES
from adafv.loading.faults import AGAIN
from adafv.loading.original_format import holds_original_weights, original_weights
from adafv.loading.tensors import Held, is_cut

_NOT_TOGETHER = f"config.json and weights do not belong together: {AGAIN}"
_BUFFER = re.compile(r"\.(position_ids|inv_freq)$")  # saved by old versions, made anew by the present ones
_BARS = ("Loading weights", "Writing model shards")  # one for weights that are fetched is worth its line, these not


def check_size(name: str, size: float, parameters: int, *, quantized: bool, unit: str = "bytes") -> None:
    """Refuse a config that asks for far more than the files hold, before memory is taken for it.

    Args:
        name: of the checkpoint, as the user gave it.
        size: of the weights.
        parameters: of the model that config.json describes.
        quantized: whether the checkpoint is, so that a weight may take half a byte.
        unit: of the size.

    Raises:
        CheckpointError: less than a byte (or 0.4 bytes) for each parameter.
    """
    if size < parameters * (0.4 if quantized else 1):
        raise CheckpointError(
            f"model: {name}: config.json describes {parameters:,} parameters, but the weights are {size:,} {unit}",
            _NOT_TOGETHER,
        )


def check_types(where: object, tensors: Mapping[str, Held]) -> None:
    """Refuse weights that are no floating-point numbers: transformers would convert and use them.

    Args:
        where: the file or the checkpoint that holds them.
        tensors: of a checkpoint that is not quantized.

    Raises:
        CheckpointError: names the first such tensor.
    """
    for key, held in tensors.items():
        if not held.dtype.startswith(("F", "BF", "float", "bfloat")) and not _BUFFER.search(key):
            what = f"model: {where}: {key} holds numbers of the type {held.dtype}, where weights are floating-point"
            raise CheckpointError(what, f"{AGAIN}; a quantized one says so in its config.json")


@contextmanager
def unreported() -> Iterator[None]:
    """Keep transformers from drawing a bar, and from warning of leftovers that `check_weights` knows to be right."""
    logger = logging.getLogger("transformers.modeling_utils")
    hook = set_tqdm_hook(None)

    def without_bar(factory: Any, args: Any, kwargs: Any) -> Any:
        kwargs = kwargs | ({"disable": True} if kwargs.get("desc") in _BARS else {})
        return factory(*args, **kwargs) if hook is None else hook(factory, args, kwargs)

    set_tqdm_hook(without_bar)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following device_map keys do not match any submodules")
        logger.addFilter(_is_no_report)
        try:
            yield
        finally:
            logger.removeFilter(_is_no_report)
            set_tqdm_hook(hook)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def check_weights(name: str, model: Any, report: dict[str, Any], vision_layers: int) -> None:
    """Hold transformers' loading report and the weights against each other.

    Args:
        name: of the checkpoint, as the user gave it.
        model: as loaded.
        report: `output_loading_info`.
        vision_layers: that were loaded; those behind them are the only weights that may be left over.

    Raises:
        CheckpointError: names the first tensor that is missing, misshapen, left over or not finite.
    """
    _check_report(name, report, vision_layers)
    check_finite(name, model.named_parameters())


def _check_report(name: str, report: Mapping[str, Any], vision_layers: int) -> None:
    left = [key for key in sorted(report["unexpected_keys"]) if not _may_be_left(key, vision_layers)]
    missing = sorted(report["missing_keys"])
    if holds_original_weights(left):
        raise original_weights(name)
    if missing:
        raise CheckpointError(f"model: {name}: {_count(missing)} missing from the files", _hint(missing[0]))
    for key, found, wanted in sorted(report["mismatched_keys"], key=str):
        raise CheckpointError(
            f"model: {name}: {key} has the shape {tuple(found)} where config.json wants {tuple(wanted)}", _NOT_TOGETHER
        )
    if left:
        raise CheckpointError(f"model: {name}: {_count(left)} left over: not of this model", _hint(left[0]))


def _may_be_left(key: str, vision_layers: int) -> bool:
    return bool(_BUFFER.search(key)) or is_cut(key, vision_layers)


def _count(keys: list[str]) -> str:
    return f"the tensor {keys[0]} is" if len(keys) == 1 else f"{len(keys)} tensors (the first is {keys[0]}) are"


def _hint(key: str) -> str:
    owners = [family.name for family in FAMILIES.values() if key.rpartition(".")[2] in family.own_tensors]
    if not owners:
        return _NOT_TOGETHER
    return f'only {" and ".join(owners)} have it ("model_type" in config.json); {_NOT_TOGETHER}'


def check_names(name: str, model: Any, tensors: Mapping[str, Held]) -> None:
    """Hold the names and shapes of tensors against a model's, before anything is read.

    Args:
        name: of the checkpoint, as the user gave it.
        model: without weights.
        tensors: by the names of a loaded LLaVA.

    Raises:
        CheckpointError: names the first tensor that is missing, misshapen or left over.
    """
    wanted = {key: tuple(held.shape) for key, held in model.named_parameters()}  # what is tied is there once
    report = {
        "missing_keys": set(wanted) - set(tensors),
        "unexpected_keys": set(tensors) - set(dict(model.named_parameters(remove_duplicate=False))),
        "mismatched_keys": {
            (key, held.shape, wanted[key])
            for key, held in tensors.items()
            if key in wanted and held.shape != wanted[key]
        },
    }
    _check_report(name, report, model.config.vision_config.num_hidden_layers)


def check_finite(name: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Look at all weights in memory once, at the speed of reading them: damaged files load without any other sign.

    Raises:
        CheckpointError: names the first tensor that is not finite.
    """
    for key, tensor in tensors:
        held = tensor.is_floating_point() and tensor.device.type != "meta" and tensor.numel() > 0
        if held and not torch.isfinite(torch.stack(torch.aminmax(tensor.detach()))).all():
            raise CheckpointError(f"model: {name}: {key} holds values that are not finite", AGAIN)
