"""The model for lmms-eval, over a stand-in for the five names of lmms-eval that it uses.

The real one is not installed here; `benchmarks/lmms_eval_demo.py` runs it, and holds its score to `adafv sweep`'s.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import adafv
from adafv import InputError
from tests.conftest import noise

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0, "num_beams": 1, "do_sample": False}
TASK = {"task": {"test": [{"image": noise(60 + 5 * number, 50, seed=number)} for number in range(6)]}}


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts | None = None


class Lmms:
    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size, self.task_dict = 0, 1, dict[str, Any]()

    @property
    def rank(self) -> int:
        return self._rank


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    logged: list[Any] = []
    parts = {
        "lmms_eval.api.instance": {"GenerationResult": GenerationResult, "TokenCounts": TokenCounts},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.models.model_utils.gen_metrics": {"log_metrics": lambda *values: logged.append(values)},
    }
    for name, content in parts.items():
        for parent in (name.rsplit(".", depth)[0] for depth in range(name.count("."), 0, -1)):
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or ModuleType(parent))
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "adafv.harness.lmms_eval", raising=False)
    found = importlib.import_module("adafv.harness.lmms_eval")
    found.logged = logged  # type: ignore[attr-defined]
    yield found
    del sys.modules["adafv.harness.lmms_eval"]


def request(doc: int, text: str = "what color is the sign?", visuals: int = 1, **wanted: Any) -> SimpleNamespace:
    return SimpleNamespace(args=(text, GREEDY | wanted, lambda doc: [doc["image"]] * visuals, doc, "task", "test"))


def model_of(harness: Any, folder: Path, **settings: Any) -> Any:
    model = harness.AdaFV(pretrained=str(folder), batch_size=2, device="cpu", dtype="float32", **settings)
    model.task_dict = TASK
    return model


def test_answers_are_those_of_the_library_in_the_order_of_the_requests(
    harness: Any, llava: adafv.Model, llava_folder: Path
) -> None:
    model = model_of(harness, llava_folder, keep=5, pruner="divprune", pad=True)
    asked = [request(doc, "how many?" if doc % 2 else "what color?", max_new_tokens=3 + doc % 3) for doc in range(6)]
    found = model.generate_until(asked)
    for one, (text, wanted, _, doc, _, _) in zip(found, (asking.args for asking in asked), strict=True):
        alone = llava.ask(TASK["task"]["test"][doc]["image"], text, keep=5, pruner="divprune", pad=True,
                          max_new_tokens=wanted["max_new_tokens"])  # fmt: skip
        assert alone.tokens is not None
        assert one == GenerationResult(alone.text or "", TokenCounts(alone.tokens.fed, alone.tokens.generated))
    ((seconds, generated, speed, more),) = harness.logged
    assert generated == sum(one.token_counts.output_tokens for one in found)
    assert speed == pytest.approx(generated / seconds)
    assert more == {"rank": 0, "visual_tokens_kept": 5, "failed": 0}


def test_an_answer_ends_before_what_the_task_says(harness: Any, llava_folder: Path) -> None:
    model = model_of(harness, llava_folder, keep=5)
    (whole,) = model.generate_until([request(0)])
    stop = whole.text[2]
    (short, other) = model.generate_until([request(0, until=[stop, "\n\n"]), request(0, until=stop)])
    assert short.text == other.text == whole.text.split(stop)[0] != whole.text


def test_a_failure_is_an_empty_answer_and_is_counted(harness: Any, llava_folder: Path) -> None:
    model = model_of(harness, llava_folder, keep=5)
    long, good = model.generate_until([request(0, "what? " * 400), request(1)])
    assert (long, bool(good.text)) == (GenerationResult("", None), True)
    assert harness.logged[0][3]["failed"] == 1


@pytest.mark.parametrize(("bad", "said"), [
    (request(0, num_beams=4), "num_beams: 4"),
    (request(0, repetition_penalty=1.1), "'repetition_penalty' is not known"),
    (request(3, visuals=2), "document 3: it comes with 2 images"), (request(3, visuals=0), "0 images"),
])  # fmt: skip
def test_what_cannot_be_answered_is_refused(harness: Any, llava_folder: Path, bad: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model_of(harness, llava_folder).generate_until([request(1), bad])


def test_unknown_arguments_are_refused(harness: Any, llava_folder: Path) -> None:
    with pytest.raises(InputError, match="'kept' is unknown"):
        model_of(harness, llava_folder, kept=5)
    with pytest.raises(InputError, match="protocol: 'publshed'"):
        model_of(harness, llava_folder, protocol="publshed")
    for refused in ("loglikelihood", "generate_until_multi_round"):
        with pytest.raises(InputError, match="not answered"):
            getattr(model_of(harness, llava_folder), refused)([request(0)])
