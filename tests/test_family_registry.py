"""A family is one record: what it does not know is refused, and its stages stand on any loaded model, cut or not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import adafv
from adafv import CheckpointError
from adafv.costs.plan import plan_image
from adafv.families import FAMILIES, family_of
from adafv.pipeline import Pipeline
from adafv.timing import Stopwatch
from tests import tiny
from tests.conftest import noise
from tests.stock import Stock

SIZES = [(56, 56), (90, 40), (40, 200), (130, 120)]


def test_an_image_of_an_unknown_family_is_refused_not_planned_as_one_crop() -> None:
    config = SimpleNamespace(model_type="llava_onevision")
    with pytest.raises(CheckpointError, match="'llava_onevision' is not one of llava, llava_next, vipllava"):
        plan_image(config, 384, 384)


def test_families_are_found_by_the_type_of_their_configuration() -> None:
    assert all(name == family.model_type for name, family in FAMILIES.items())
    assert family_of(SimpleNamespace(model_type="llava_next")).name == "LLaVA-NeXT"
    assert len({family.name for family in FAMILIES.values()}) == len(FAMILIES)


@pytest.mark.parametrize("kind", FAMILIES)
def test_stages_do_not_need_a_tower_that_was_cut_when_it_was_loaded(tmp_path: Path, kind: str) -> None:
    """The same features, saliency and tokens from the whole model as stock transformers loads it."""
    tiny.save(kind, tmp_path, **({"vision_feature_layers": [-2, 1]} if kind == "vipllava" else {}))
    stock, ours = Stock.load(tmp_path), adafv.load(str(tmp_path), dtype="float32", device_map="cpu").pipeline
    whole = Pipeline(stock.model, stock.processor, FAMILIES[kind])
    for number, size in enumerate(SIZES):
        image = noise(*size, seed=number)
        (one,), (other,) = (pipeline.encode([pipeline.preprocess(image)], Stopwatch()) for pipeline in (ours, whole))
        for name in ("packed", "features", "saliency", "candidates", "crop", "cell"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert one.grids == other.grids == FAMILIES[kind].stages.plan(stock.model.config, *image.size[::-1]).grids
