"""Listens to a loaded model while it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

import adafv


@dataclass
class Heard:
    """One entry for each forward of the language model, prefill first."""

    logits: list[torch.Tensor] = field(default_factory=list)
    positions: list[torch.Tensor] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    vision_calls: int = 0


@contextmanager
def listening(model: adafv.Model) -> Iterator[Heard]:
    """What goes into the language model and comes out of its head, as long as the `with` lasts."""
    heard, network = Heard(), model._checkpoint.model

    def hear_head(_module: Any, _args: Any, output: torch.Tensor) -> None:
        heard.logits.append(output[:, -1].float().clone())

    def hear_language(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        heard.positions.append(kwargs["position_ids"].clone())
        heard.lengths.append(kwargs["inputs_embeds"].shape[1])

    def hear_vision(_module: Any, _args: Any) -> None:
        heard.vision_calls += 1

    hooks = [
        network.lm_head.register_forward_hook(hear_head),
        network.model.language_model.register_forward_pre_hook(hear_language, with_kwargs=True),
        network.model.vision_tower.register_forward_pre_hook(hear_vision),
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
