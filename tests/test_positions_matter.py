"""Where positions and order decide, on random weights: both are those of stock transformers, and neither is idle.

The demo's answers hardly depend on either, so it could not tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv import choosing
from adafv.choosing import Kept
from tests.conftest import noise
from tests.spying import listening
from tests.stock import Stock

QUESTION = "what color is the sign?"
KEEP = 6


@pytest.fixture(scope="module")
def stock(llava_folder: Path) -> Stock:
    return Stock.load(llava_folder)


def first_logits(model: adafv.Model, positions: Any, keep: int = KEEP) -> torch.Tensor:
    with listening(model) as heard:
        model.ask(noise(60, 60), QUESTION, keep=keep, positions=positions, max_new_tokens=1)
    return heard.logits[0]


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_they_are_stock_transformers_with_what_was_dropped_masked_out(
    llava: adafv.Model, stock: Stock, positions: Any
) -> None:
    inputs = stock.inputs(noise(60, 60), llava._prompter.prompt(QUESTION).text)
    told = llava.explain(noise(60, 60), QUESTION, keep=KEEP)
    mask = torch.ones_like(inputs["input_ids"])
    slots = (inputs["input_ids"][0] == stock.model.config.image_token_id).nonzero()[:, 0]
    mask[0, slots[[not token.kept for token in told.tokens]]] = 0
    assert int(mask.sum()) == mask.shape[1] - len(told.tokens) + KEEP
    numbers = torch.arange(mask.shape[1])[None] if positions == "original" else (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        given = dict(inputs) | {"attention_mask": mask, "position_ids": numbers}
        wanted = stock.model(**given, logits_to_keep=1).logits[:, -1]
    assert (first_logits(llava, positions) - wanted).abs().max() < 1e-5


def test_positions_change_the_answer_s_logits(llava: adafv.Model) -> None:
    compact, original = (first_logits(llava, positions) for positions in ("compact", "original"))
    assert (compact - original).abs().max() > 1e-4


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_order_changes_the_answer_s_logits(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch, positions: Any) -> None:
    ordered, chosen = first_logits(llava, positions), Kept.chosen

    def shuffled(*args: Any) -> Kept:
        kept, order = chosen(*args), torch.tensor([3, 0, 5, 1, 4, 2])
        return Kept(kept.tokens[order], kept.places[order])

    monkeypatch.setattr(choosing.Kept, "chosen", shuffled)
    assert (first_logits(llava, positions) - ordered).abs().max() > 1e-3
