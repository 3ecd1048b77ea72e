"""Parameters of a checkpoint and the memory that its weights take, without loading any of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from adafv.families.tower import layers_that_run

_BLOCK = 64  # 4-bit weights that share one float32 scale


@dataclass(frozen=True)
class Parameters:
    """How many there are, as published.

    Args:
        vision_tower: all layers, also those that never run.
        multi_modal_projector: two linear layers; ViP-LLaVA has a norm in front of them.
        image_newline: the row-end embedding of LLaVA-NeXT and LLaVA-OneVision, 0 elsewhere.
        language_model: embeddings included, head not.
        lm_head: 0 where it shares the embeddings' weights.
        total: all of these.
    """

    vision_tower: int
    multi_modal_projector: int
    image_newline: int
    language_model: int
    lm_head: int
    total: int


@dataclass(frozen=True)
class WeightBytes:
    """Memory of the weights that are loaded, by how they are held; vision layers that never run are left out.

    `int8` and `int4` hold the linear layers of the language model so, scales included. Vision tower, projector,
    embeddings, norms and LM head stay at 16 bit.
    """

    float32: int
    bfloat16: int
    float16: int
    int8: int
    int4: int


def count_parameters(config: Any) -> tuple[Parameters, WeightBytes]:
    """Build the model without memory for its weights, and count.

    Args:
        config: of a checkpoint of any family, as published.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(copy.deepcopy(config))
    parts = {"vision_tower": 0, "multi_modal_projector": 0, "image_newline": 0, "language_model": 0, "lm_head": 0}
    for name, parameter in model.named_parameters():
        parts[name.removeprefix("model.").partition(".")[0]] += parameter.numel()
    total = sum(parts.values())
    unused = model.model.vision_tower.encoder.layers[layers_that_run(config) :]
    loaded = total - sum(parameter.numel() for parameter in unused.parameters())
    return Parameters(**parts, total=total), _weight_bytes(model, loaded)


def _weight_bytes(model: Any, loaded: int) -> WeightBytes:
    """Count bytes as bitsandbytes holds weights: int8 with one float32 scale a row, int4 with one a block."""
    linear = [module.weight for module in model.model.language_model.modules() if isinstance(module, nn.Linear)]
    quantized = sum(weight.numel() for weight in linear)
    rest = 2 * (loaded - quantized)
    row_scales = 4 * sum(weight.shape[0] for weight in linear)
    block_scales = 4 * sum(-(-weight.numel() // _BLOCK) for weight in linear)
    halves = sum(-(-weight.numel() // 2) for weight in linear)
    return WeightBytes(
        float32=4 * loaded,
        bfloat16=2 * loaded,
        float16=2 * loaded,
        int8=rest + quantized + row_scales,
        int4=rest + halves + block_scales,
    )
