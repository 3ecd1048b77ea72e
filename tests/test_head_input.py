"""What the LM head multiplies in a prefill is one piece: of a slice torch makes a product for every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv import Question, prefixes
from adafv.families.hooks import in_one_piece
from tests.conftest import noise

TEXTS = ("what color is the sign?", "what?", "is there a red car? Please answer yes or no.", "and the house?")


def strides_of(tensor: torch.Tensor) -> tuple[int, ...]:
    return torch.empty(tensor.shape, device="meta").stride()


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("keep", [5, "all"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_prefill_makes_a_product_for_every_row(
    llava_folder: Path, monkeypatch: pytest.MonkeyPatch, size: int, keep: Any, dtype: str
) -> None:
    """Shared beginnings and further rounds included; and the head is left as it was."""
    monkeypatch.setattr(prefixes, "WORTH", -(10**9))
    model = adafv.load(str(llava_folder), dtype=dtype, device_map="cpu")
    head = model.pipeline.model.get_output_embeddings()
    given: list[torch.Tensor] = []
    linear = type(head).forward

    def spy(self: Any, states: torch.Tensor) -> Any:
        given.append(states)
        return linear(self, states)

    monkeypatch.setattr(head, "forward", spy.__get__(head))
    asked = [Question(number, noise(60, 60), text) for number, text in enumerate(TEXTS)]
    answers = list(model.batch(asked, batch_size=size, keep=keep, max_new_tokens=4))
    assert [answer.error for answer in answers] == [None] * 4
    assert len(given) >= 4
    assert all(states.stride() == strides_of(states) for states in given)
    assert not head._forward_pre_hooks


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_slice_comes_in_one_piece_with_its_numbers(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head, states = torch.nn.Linear(16, 40, bias=False, dtype=dtype), torch.randn(rows, 7, 16).to(dtype)[:, -1:, :]
    wanted = head(states.squeeze(1).clone())
    assert states.stride() != strides_of(states)
    given: list[torch.Tensor] = []
    head.register_forward_hook(lambda _module, args, _output: given.append(args[0]))
    with in_one_piece(head):
        found = head(states)
    assert torch.equal(found[:, 0], wanted)
    assert given[0].stride() == strides_of(states) and torch.equal(given[0], states)
    head(states)
    assert given[1] is states
