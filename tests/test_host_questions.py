"""How often a batch asks the device for a number, which leaves an accelerator idle: as often as one question does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import adafv
from adafv import Question, RunSettings
from adafv.images import open_image
from adafv.request import Request
from adafv.timing import Stopwatch
from tests.conftest import noise

_NUMBERS = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")
_WAITS = {getattr(torch.Tensor, name) for name in _NUMBERS} | {torch.nonzero, torch.masked_select}


class Asked(TorchFunctionMode):
    """Counts what would wait for an accelerator: numbers, truth values, lists, and shapes that depend on values."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        places = args[1] if func is torch.Tensor.__getitem__ else None
        by_mask = isinstance(places, torch.Tensor) and places.dtype is torch.bool
        self.count += func in _WAITS or by_mask
        return func(*args, **(kwargs or {}))


def asked_by(work: Callable[[], object]) -> int:
    """Count over some work."""
    with Asked() as asked:
        work()
    return asked.count


@pytest.mark.parametrize(
    "settings",
    [{}, {"pruner": "visionzip"}, {"pruner": "divprune"}, {"keep": "auto"}, {"keep": "all"}, {"temperature": 0.7}],
    ids=str,
)
def test_a_batch_asks_as_often_as_one_question(llava: adafv.Model, settings: dict[str, Any]) -> None:
    run = RunSettings(**{"keep": 8, "max_new_tokens": 1} | settings)
    encoding, cost = llava.encode(noise(70, 56), run)

    def answered(size: int) -> int:
        asked = [Question(number, None, "what color is the sign?") for number in range(size)]
        requests = [Request(one, llava.render(one, run), encoding, cost) for one in asked]
        return asked_by(lambda: llava.run(requests, run))

    assert answered(6) == answered(2)


def test_images_are_encoded_with_one_question(llava: adafv.Model) -> None:
    pixels = [llava.pipeline.preprocess(open_image(noise(70, 56, seed))) for seed in range(4)]
    assert asked_by(lambda: llava.pipeline.encode(pixels, Stopwatch())) == 1
