"""Refuses weights that are not the model's: transformers fills gaps at random, and says so in its report alone."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils.logging import set_tqdm_hook

from adafv.errors import CheckpointError
from adafv.families import FAMILIES
from adafv.loading.faults import AGAIN
from adafv.loading.files import weight_files
from adafv.loading.original_format import holds_original_weights, original_format

_NOT_TOGETHER = f"config.json and weights do not belong together: {AGAIN}"
_BUFFER = re.compile(r"\.(position_ids|inv_freq)$")  # saved by old versions, made anew by the present ones
_BAR = "Loading weights"  # one for weights that are fetched is worth its line, this one is not
_TOWER_LAYER = re.compile(r"vision_tower\..*layers\.(\d+)\.")


def check_size(folder: Path, parameters: int, *, quantized: bool) -> None:
    """Refuse a config that asks for far more than the files hold, before memory is taken for it.

    Args:
        folder: that holds the weights.
        parameters: of the model that config.json describes.
        quantized: whether the checkpoint is, so that a weight may take half a byte.

    Raises:
        CheckpointError: less than a byte (or 0.4 bytes) for each parameter.
    """
    size = sum(path.stat().st_size for path in weight_files(folder))
    if size < parameters * (0.4 if quantized else 1):
        raise CheckpointError(
            f"model: {folder}: config.json describes {parameters:,} parameters, but the weights are {size:,} bytes",
            _NOT_TOGETHER,
        )


def check_types(folder: Path) -> None:
    """Refuse weights that are no floating-point numbers: transformers would convert and use them.

    Args:
        folder: that holds the weights, of a checkpoint that is not quantized.

    Raises:
        CheckpointError: names the file and its first such tensor.
    """
    for path in weight_files(folder):
        for key, kind in _kinds(path):
            if not kind.startswith(("F", "BF", "float", "bfloat")) and not _BUFFER.search(key):
                what = f"model: {path}: {key} holds numbers of the type {kind}, where weights are floating-point"
                raise CheckpointError(what, f"{AGAIN}; a quantized one says so in its config.json")


def _kinds(path: Path) -> Iterator[tuple[str, str]]:
    """List the types of the tensors in a weight file (`F16`, `int8`), without reading what is in them."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            yield from ((key, file.get_slice(key).get_dtype()) for key in file.keys())  # noqa: SIM118 - no mapping
        return
    held = torch.load(path, map_location="meta", weights_only=True)
    for key, tensor in held.items():
        if isinstance(tensor, torch.Tensor):
            yield key, str(tensor.dtype).removeprefix("torch.")


@contextmanager
def unreported() -> Iterator[None]:
    """Keep transformers from drawing a bar, and from warning of leftovers that `check_weights` knows to be right."""
    logger = logging.getLogger("transformers.modeling_utils")
    hook = set_tqdm_hook(None)

    def without_bar(factory: Any, args: Any, kwargs: Any) -> Any:
        kwargs = kwargs | ({"disable": True} if kwargs.get("desc") == _BAR else {})
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
    left = [key for key in sorted(report["unexpected_keys"]) if not _may_be_left(key, vision_layers)]
    missing = sorted(report["missing_keys"])
    if holds_original_weights(left):
        raise original_format(name, {})
    if missing:
        raise CheckpointError(f"model: {name}: {_count(missing)} missing from the files", _hint(missing[0]))
    for key, found, wanted in sorted(report["mismatched_keys"], key=str):
        raise CheckpointError(
            f"model: {name}: {key} has the shape {tuple(found)} where config.json wants {tuple(wanted)}", _NOT_TOGETHER
        )
    if left:
        raise CheckpointError(f"model: {name}: {_count(left)} left over: not of this model", _hint(left[0]))
    _check_finite(name, model)


def _may_be_left(key: str, vision_layers: int) -> bool:
    layer = _TOWER_LAYER.search(key)
    return bool(_BUFFER.search(key)) or (layer is not None and int(layer[1]) >= vision_layers)


def _count(keys: list[str]) -> str:
    return f"the tensor {keys[0]} is" if len(keys) == 1 else f"{len(keys)} tensors (the first is {keys[0]}) are"


def _hint(key: str) -> str:
    owners = [family.name for family in FAMILIES.values() if key.rpartition(".")[2] in family.own_tensors]
    if not owners:
        return _NOT_TOGETHER
    return f'only {" and ".join(owners)} have it ("model_type" in config.json); {_NOT_TOGETHER}'


def _check_finite(name: str, model: Any) -> None:
    """Look at all weights in memory once, at the speed of reading them: damaged files load without any other sign."""
    for key, tensor in model.named_parameters():
        held = tensor.is_floating_point() and tensor.device.type != "meta" and tensor.numel() > 0
        if held and not torch.isfinite(torch.stack(torch.aminmax(tensor.detach()))).all():
            raise CheckpointError(f"model: {name}: {key} holds values that are not finite", AGAIN)
