"""Settings: equal ones are equal however they are written, and every method of a model takes them in the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adafv
from adafv import InputError, LoadSettings, Question, RunSettings
from adafv.streaming.runs import Asked
from tests.conftest import noise


@pytest.mark.parametrize(
    ("one", "other"),
    [(64, "64"), (64, " 064 "), ("25%", "25.0%"), ("25%", " 25.000% "), ("all", "ALL"), ("0.5%", "00.50%")],
)
def test_a_budget_is_one_setting_however_it_is_written(one: str | int, other: str | int) -> None:
    assert RunSettings(keep=one) == RunSettings(keep=other)
    assert hash(RunSettings(keep=one)) == hash(RunSettings(keep=other))
    assert RunSettings(keep=one).keep == RunSettings(keep=other).budget.text


@pytest.mark.parametrize("keep", ["6.25%", "12.5%", "100%", "0.1%", "33.333333333333333333%", "128", "all"])
def test_a_budget_in_its_usual_form_stays_as_it_is(keep: str) -> None:
    assert RunSettings(keep=keep).keep == keep


@pytest.mark.parametrize(
    ("keep", "pruner", "visual", "kept"),
    [
        ("all", "adafv", 16, None), (16, "adafv", 16, None), (17, "adafv", 16, None), (15, "adafv", 16, 15),
        ("100%", "adafv", 16, None), ("25%", "adafv", 16, 4), (5, "none", 16, None), ("0.1%", "random", 16, 1),
    ],
)  # fmt: skip
def test_what_is_pruned_is_said_in_one_place(keep: str, pruner: str, visual: int, kept: int | None) -> None:
    assert RunSettings(keep=keep, pruner=pruner).pruned_to(visual) == kept


def test_a_sweep_knows_its_settings_however_they_are_written(llava: adafv.Model) -> None:
    asked = Asked(Question(0, noise(60, 60), "what?"), (RunSettings(keep="8", max_new_tokens=1),))
    ((answer,),) = llava.sweep([asked], [RunSettings(keep=8, max_new_tokens=1)])
    assert answer.tokens is not None and answer.tokens.kept == 8


Call = Callable[..., Any]
CALLS: dict[str, Callable[[adafv.Model], Call]] = {
    "ask": lambda model: lambda *run, **rest: model.ask(noise(60, 60), "what?", *run, **rest),
    "answer": lambda model: lambda *run, **rest: next(model.answer(noise(60, 60), ["what?"], *run, **rest)),
    "explain": lambda model: lambda *run, **rest: model.explain(noise(60, 60), "what?", *run, **rest).answer,
    "batch": lambda model: lambda *run, **rest: next(
        model.batch([Question(0, noise(60, 60), "what?")], *run, **rest)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_methods_take_complete_settings_or_single_ones(llava: adafv.Model, name: str) -> None:
    call = CALLS[name](llava)
    settings: dict[str, Any] = dict(keep=5, pruner="saliency", max_new_tokens=2)
    one, other = call(RunSettings(**settings)), call(**settings)
    assert (one.text, one.tokens, one.keep, one.pruner) == (other.text, other.tokens, "5", "saliency")


@pytest.mark.parametrize("name", CALLS)
def test_settings_given_twice_or_misspelt_are_refused(llava: adafv.Model, name: str) -> None:
    call = CALLS[name](llava)
    with pytest.raises(InputError, match="run and keep: settings are given twice"):
        call(RunSettings(), keep=5)
    with pytest.raises(InputError, match="nonsense"):
        call(RunSettings(), nonsense=3)
    with pytest.raises(TypeError, match="nonsense"):
        call(nonsense=3)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("max_new_tokens", 1.5, "1.5 is not a whole number"), ("max_new_tokens", "7", "'7' is not a whole number"),
        ("max_new_tokens", True, "True is not a whole number"), ("seed", "x", "'x' is not a whole number"),
        ("seed", None, "None is not a whole number"), ("temperature", "hot", "'hot' is not a number"),
        ("top_p", None, "None is not a number"), ("system", 5, "5 is no text"), ("pruner", None, "None is no text"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_by_name(name: str, value: object, what: str) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(InputError, match=f"^{name}: {what}"):
        RunSettings(**settings)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = dict(max_new_tokens=np.int64(3), seed=np.int32(1), temperature=np.float32(0.5))
    run = RunSettings(**numbers)
    assert run == RunSettings(max_new_tokens=3, seed=1, temperature=0.5)
    assert json.loads(json.dumps([run.max_new_tokens, run.seed, run.temperature])) == [3, 1, 0.5]


def test_load_settings_given_twice_are_refused() -> None:
    with pytest.raises(InputError, match="LoadSettings and dtype: settings are given twice"):
        adafv.load(LoadSettings(), dtype="float32")
