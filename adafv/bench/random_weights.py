"""Builds a model of a geometry with random weights: at the speed of writing memory, once, on its device."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import get_max_memory
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedModel,
)

from adafv.bench.geometries import GEOMETRIES, Geometry
from adafv.demo import CHECKPOINT
from adafv.engine import Model
from adafv.errors import DeviceError
from adafv.wrapping import wrap

_BLOCK = 1_048_573  # random numbers that are repeated: a prime, so that no two rows of a matrix are the same
_SCALE = 0.02
_ROOM = 1.08  # of the weights: activations and cache of one prompt at least


def build(shape: Geometry, dtype: torch.dtype, device: torch.device, attention: str = "sdpa") -> tuple[Model, Any]:
    """Build a model that can be asked, and its processor. Its words are the bundled demo's.

    Args:
        shape: of the model.
        dtype: of the weights.
        device: that holds all of them.
        attention: kernel of both towers.

    Raises:
        DeviceError: more weights than the device has memory for.
    """
    _check_room(shape, dtype, device)
    processor = _processor(shape)
    config = shape.config(processor.tokenizer.convert_tokens_to_ids("<image>"))
    config.name_or_path = f"random weights of {shape.name}"
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
    _fill(model, device)
    return wrap(model.eval(), processor), processor


def weight_bytes(model: nn.Module) -> int:
    """Count the bytes that a model's weights take."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def fits(shape: Geometry, dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether a device has memory for the weights of a geometry, and for a prompt besides."""
    return _parameters(shape) * dtype.itemsize * _ROOM <= _free(device)


def _free(device: torch.device) -> int:
    memory = get_max_memory()
    return int(memory.get("cpu" if device.type == "cpu" else device.index or 0, memory.get(device.type, 0)))


def _check_room(shape: Geometry, dtype: torch.dtype, device: torch.device) -> None:
    if fits(shape, dtype, device):
        return
    kind = str(dtype).removeprefix("torch.")
    needed, free = _parameters(shape) * dtype.itemsize * _ROOM / 2**30, _free(device) / 2**30
    others = [one.name for one in GEOMETRIES.values() if one.tiles == shape.tiles and fits(one, dtype, device)]
    advice = f"--geometry {others[0]} fits" if others else "free some memory"
    raise DeviceError(
        f"geometry: {shape.name} in {kind} needs {needed:.1f} GiB, {device} has {free:.1f}",
        f"{advice}; --dtype bfloat16 takes half of float32" if dtype.itemsize > 2 else advice,
    )


def _parameters(shape: Geometry) -> int:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(shape.config(3))
    return sum(parameter.numel() for parameter in model.parameters())


def _fill(model: PreTrainedModel, device: torch.device) -> None:
    """Give every parameter its memory and its numbers; scales of norms are 1 and biases 0, as in a new model."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty_like(buffer, device=device))
        for name, empty in module.named_parameters(recurse=False):
            values = torch.empty_like(empty, device=device)
            module.register_parameter(name, nn.Parameter(values, requires_grad=False))
    _make_buffers(model, model)  # draws the parameters of their modules, too, so that ours come behind: always the same
    block = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0)).mul_(_SCALE).to(device, model.dtype)
    for module in model.modules():
        for name, values in module.named_parameters(recurse=False):
            _write(values, name, block)


def _make_buffers(module: nn.Module, owner: PreTrainedModel) -> None:
    """Make positions and rotary frequencies, as the model of transformers that owns them does."""
    owner = module if isinstance(module, PreTrainedModel) else owner
    if any(True for _ in module.buffers(recurse=False)):
        owner._init_weights(module)
    for child in module.children():
        _make_buffers(child, owner)


def _write(values: Tensor, name: str, block: Tensor) -> None:
    if values.ndim == 1 and name in ("weight", "bias"):
        values.fill_(1.0 if name == "weight" else 0.0)
        return
    flat = values.view(-1)
    for start in range(0, len(flat), _BLOCK):
        part = flat[start : start + _BLOCK]
        part.copy_(block[: len(part)])


def _processor(shape: Geometry) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    template = (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")
    side = shape.side
    shared: dict[str, Any] = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
    }
    asked: dict[str, Any] = {
        "tokenizer": tokenizer,
        "patch_size": shape.vision["patch_size"],
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "chat_template": template,
    }
    if shape.tiles:
        pictures = LlavaNextImageProcessorPil(**shared, image_grid_pinpoints=shape.pinpoints)
        return LlavaNextProcessor(image_processor=pictures, **asked)
    return LlavaProcessor(image_processor=CLIPImageProcessorPil(**shared), **asked)
