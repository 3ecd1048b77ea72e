"""Loads a checkpoint without its language model, where a server has that: what makes prompts, and nothing behind it."""

from __future__ import annotations

import copy
import re
from typing import Any

from torch import nn

from adafv.errors import CheckpointError
from adafv.loading.source import Source

_UNSERVED = {"vipllava": "ViP-LLaVA"}  # that vLLM does not know
_TEXT_LAYER = re.compile(r"language_model\..*layers\.\d+\.")


def check_served(source: Source) -> None:
    """Refuse what a server cannot load as it is.

    Raises:
        CheckpointError: an adapter, or LLaVA's original format.
    """
    if source.original is not None or source.adapter is not None:
        kind = "an adapter" if source.adapter is not None else "in LLaVA's original format"
        name = source.settings.model if source.adapter is None else source.adapter.name
        what = f"model: {name} is {kind}, which vLLM does not serve"
        raise CheckpointError(what, "convert it once with `adafv convert`, and serve and use the folder")


def without_layers(name: str, config: Any) -> Any:
    """Copy a LLaVA config, with a language model of no layers.

    Args:
        name: of the checkpoint, as the user gave it.
        config: of the whole model.

    Raises:
        CheckpointError: a family that no server takes.
    """
    if config.model_type in _UNSERVED:
        family = _UNSERVED[config.model_type]
        raise CheckpointError(
            f"model: {name} is a {family}, which vLLM does not serve", "leave --server out: the engine here answers it"
        )
    front = copy.deepcopy(config)
    front.text_config.num_hidden_layers = 0
    if getattr(front.text_config, "layer_types", None) is not None:
        front.text_config.layer_types = []
    return front


def as_front(model: Any, report: dict[str, Any], config: Any) -> None:
    """Take the head off a model that was loaded without layers, and let its config say what the server runs.

    Args:
        model: as loaded.
        report: of the loading; layers that were left out are no longer in it.
        config: of the whole model.
    """
    report["unexpected_keys"] = {key for key in report["unexpected_keys"] if not _TEXT_LAYER.search(key)}
    model.lm_head = nn.Identity()
    model.config.text_config = config.text_config
