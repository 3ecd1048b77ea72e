"""A family is one record: what it does not know is refused, and its stages stand on any loaded model, cut or not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import adafv
from adafv import CheckpointError
from adafv.costs.plan import PromptPlan, plan_answer, plan_image
from adafv.families import FAMILIES, family_of
from adafv.loading.reading import read_config
from adafv.pipeline import Pipeline
from adafv.settings import LoadSettings, RunSettings
from adafv.timing import Stopwatch
from tests import tiny
from tests.conftest import noise
from tests.stock import Stock, encoded, run

QUESTION = "what color is the sign?"
SIZES = [(56, 56), (90, 40), (40, 200), (130, 120)]


def test_an_image_of_an_unknown_family_is_refused_not_planned_as_one_crop() -> None:
    config = SimpleNamespace(model_type="qwen2_vl")
    with pytest.raises(CheckpointError, match="'qwen2_vl' is not one of llava, llava_next, llava_onevision, vipllava"):
        plan_image(config, 384, 384)


def test_families_are_found_by_the_type_of_their_configuration() -> None:
    assert all(name == family.model_type for name, family in FAMILIES.items())
    assert family_of(SimpleNamespace(model_type="llava_next")).name == "LLaVA-NeXT"
    assert len({family.name for family in FAMILIES.values()}) == len(FAMILIES)


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny checkpoint of each family."""
    changes = {"vision_feature_layers": [-2, 1]} if request.param == "vipllava" else {}
    return tiny.save(request.param, tmp_path, **changes)


def test_keeping_everything_equals_stock_transformers(folder: Path) -> None:
    stock, model = Stock.load(folder), adafv.load(str(folder), dtype="float32", device_map="cpu")
    for number, size in enumerate(SIZES):
        image = noise(*size, seed=number)
        text = model._prompter.prompt(QUESTION).text
        wanted, (visual,) = stock.logits(image, text), encoded(model, image)
        assert (visual.packed - stock.visual(image, text)).abs().max() < 1e-5
        logits, (outcome,) = run(model, (image, QUESTION), keep="all", max_new_tokens=6)
        assert (logits - wanted).abs().max() < 1e-5 and wanted.std() > 0.1
        assert outcome.decoded.ids == stock.generated(image, text, 6)


def test_an_answer_costs_what_the_plan_says(folder: Path) -> None:
    settings = LoadSettings(str(folder), dtype="float32", device_map="cpu")
    config, model = read_config(settings), adafv.load(settings)
    for number, size in enumerate(SIZES):
        answer, image = model.ask(noise(*size, seed=number), QUESTION, keep=5), plan_image(config, *size[::-1])
        assert answer.tokens is not None and answer.memory_bytes is not None
        prompt = model._prompter.prompt(QUESTION)
        lengths = PromptPlan(len(prompt.before), len(prompt.after), answer.tokens.generated)
        plan = plan_answer(config, image, RunSettings(keep=5), lengths, bytes_per_value=4)
        assert plan.flops == answer.flops and plan.memory_bytes == answer.memory_bytes
        assert (image.visual, image.crops) == (answer.tokens.visual, answer.tokens.crops)


def test_stages_do_not_need_a_tower_that_was_cut_when_it_was_loaded(folder: Path) -> None:
    """The same features, saliency and tokens from the whole model as stock transformers loads it."""
    stock, ours = Stock.load(folder), adafv.load(str(folder), dtype="float32", device_map="cpu").pipeline
    family = family_of(stock.model.config)
    whole = Pipeline(stock.model, stock.processor, family)
    for number, size in enumerate(SIZES):
        image = noise(*size, seed=number)
        (one,), (other,) = (pipeline.encode([pipeline.preprocess(image)], Stopwatch()) for pipeline in (ours, whole))
        for name in ("packed", "features", "saliency", "candidates", "crop", "cell"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert one.grids == other.grids == family.stages.plan(stock.model.config, *image.size[::-1]).grids
