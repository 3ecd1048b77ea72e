"""Merges LoRA adapters into the base that they were trained on, with peft.

What is merged are the modules that an adapter has tensors for: its own `target_modules` would also match modules of
the vision tower that it was never trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adafv.errors import CheckpointError, DeviceError
from adafv.loading.adapter import CONFIG, Adapter
from adafv.loading.faults import AGAIN, is_installed
from adafv.loading.hub import find
from adafv.loading.tensors import Held, is_cut

_CONVERT = "merge it once with `adafv convert ADAPTER FOLDER`, then use the folder"
OTHER_BASE = "give the base that it was trained on with --base"


def check_mergeable(name: str, quantize: str | None) -> None:
    """See that an adapter can be merged here, before its base is loaded.

    Raises:
        DeviceError: no peft, or weights that will be quantized.
    """
    if not is_installed("peft"):
        raise DeviceError(f"model: {name} is an adapter, and merging it needs peft", "pip install 'adafv[lora]'")
    if quantize is not None:
        raise DeviceError(
            f"--quantize {quantize}: {name} is an adapter, and is merged into weights as they are", _CONVERT
        )


def check_in_memory(name: str, placement: object) -> None:
    """See that no weight is offloaded: an adapter is merged into weights in memory.

    Raises:
        DeviceError: some are.
    """
    places = set(placement.values()) if isinstance(placement, dict) else set()
    if "disk" in places or ("cpu" in places and len(places) > 1):
        raise DeviceError(f"model: {name} is an adapter, and its base does not fit into the devices' memory", _CONVERT)


def merge(adapter: Adapter, model: Any, *, whole: bool) -> None:
    """Merge an adapter into its loaded base, with peft.

    Args:
        adapter: found and checked.
        model: in memory.
        whole: also copy the tensors that take the place of the base's.

    Raises:
        CheckpointError: tensors that are missing, or of another base.
    """
    modules, layers = dict(model.named_modules()), model.config.vision_config.num_hidden_layers
    parts = {module: held for module, held in adapter.parts.items() if not is_cut(f"{module}.weight", layers)}
    if not parts and not adapter.whole:
        raise CheckpointError(f"model: the adapter {adapter.name} holds no tensor of a LoRA", AGAIN)
    _check_complete(adapter, parts, modules)
    for module, held in parts.items():
        _check_shapes(adapter.name, module, held, modules.get(module))
    if whole:
        _copy(adapter, model, layers)
    if parts:
        _merge_parts(adapter, model, parts)


def _check_complete(adapter: Adapter, parts: Mapping[str, Mapping[str, Held]], modules: Mapping[str, Any]) -> None:
    """Refuse half an adapter: one of two factors, or some of the layers where all were trained."""
    for module, held in parts.items():
        names = {part.partition(".")[0] for part in held}
        for pair in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            missing = [name for name in pair if name not in names]
            if len(missing) == 1:
                raise CheckpointError(f"model: the adapter {adapter.name}: {module}.{missing[0]} is missing", AGAIN)
    chosen = str(adapter.settings.get("target_modules"))
    if adapter.settings.get("layers_to_transform") is not None or re.search(r"\d", chosen):
        return  # numbers: it was trained on some of the layers
    kinds = {_kind(module) for module in parts}
    for module in modules:
        if _kind(module) in kinds and module not in parts:
            what = f"model: the adapter {adapter.name} has nothing for {module}, but for its like in other layers"
            raise CheckpointError(what, f"{AGAIN}, or {OTHER_BASE}")


def _kind(module: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", module)


def _check_shapes(name: str, module: str, held: Mapping[str, Held], target: Any) -> None:
    if target is None or not isinstance(getattr(target, "weight", None), Tensor):
        raise CheckpointError(f"model: the adapter {name} changes {module}, which its base does not have", OTHER_BASE)
    rows, columns = target.weight.shape
    sides = {
        "lora_A": (1, columns),
        "lora_B": (0, rows),
        "lora_embedding_A": (1, rows),
        "lora_embedding_B": (0, columns),
    }
    for part, tensor in held.items():
        side, wanted = sides.get(part.partition(".")[0], (0, rows))
        if part.endswith(".bias"):
            side, wanted = 0, rows
        if tensor.shape[side] != wanted:
            what = f"model: the adapter {name}: {module}.{part.partition('.')[0]} has the shape {tensor.shape}"
            raise CheckpointError(f"{what}, and its base's {module} {tuple(target.weight.shape)}", OTHER_BASE)


def _copy(adapter: Adapter, model: Any, layers: int) -> None:
    parameters = dict(model.named_parameters())
    for name, held in adapter.whole.items():
        if is_cut(name, layers):
            continue
        if name not in parameters or tuple(parameters[name].shape) != held.shape:
            has = tuple(parameters[name].shape) if name in parameters else "none of that name"
            what = f"model: the adapter {adapter.name} has a {name} of the shape {held.shape}, its base {has}"
            raise CheckpointError(what, OTHER_BASE)
        with torch.no_grad():
            parameters[name].copy_(held[...])


def _merge_parts(adapter: Adapter, model: Any, parts: Mapping[str, Mapping[str, Held]]) -> None:
    from peft import PeftConfig, get_peft_model

    path = find(adapter.place, CONFIG, adapter.hub)
    config: Any = PeftConfig.from_pretrained(str(Path(str(path)).parent))
    alphas, trained = config.alpha_pattern or {}, adapter.trained
    config.alpha_pattern = {
        re.escape(module): alpha
        for module in parts
        for pattern, alpha in alphas.items()
        if re.match(rf"(.*\.)?({pattern})$", trained[module])
    }
    config.rank_pattern = {re.escape(module): _rank(held) for module, held in parts.items()}
    config.target_modules = sorted(parts)
    config.init_lora_weights = True
    config.layers_to_transform = config.layers_pattern = config.modules_to_save = config.exclude_modules = None
    config.target_parameters = None
    wrapped = get_peft_model(model, config, low_cpu_mem_usage=True)
    named = {}
    for module, held in parts.items():
        device = model.get_submodule(module).base_layer.weight.device
        for part, tensor in held.items():
            named[f"base_model.model.{module}.{part}"] = tensor[...].to(device, torch.float32)
    report = wrapped.load_state_dict(named, strict=False, assign=True)
    missing = [key for key in report.missing_keys if ".lora_" in key]
    if missing or report.unexpected_keys:
        what = f"model: the adapter {adapter.name} cannot be merged: {(missing or report.unexpected_keys)[0]}"
        raise CheckpointError(f"{what} is {'missing' if missing else 'of no part of a LoRA'}", AGAIN)
    merged = wrapped.merge_and_unload(safe_merge=True)
    for left in ("peft_config", "_hf_peft_config_loaded"):
        if left in vars(merged):
            delattr(merged, left)


def _rank(held: Mapping[str, Held]) -> int:
    return next(tensor.shape[0] for part, tensor in held.items() if part.startswith(("lora_A", "lora_embedding_A")))
