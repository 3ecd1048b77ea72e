"""Random weights at a named geometry: the published sizes, and the same model that transformers would build."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from adafv.bench import random_weights
from adafv.bench.geometries import GEOMETRIES, geometry
from adafv.bench.random_weights import build, fits
from adafv.bench.subject import drawn
from adafv.costs.parameters import count_parameters
from adafv.errors import DeviceError, InputError
from tests.test_info import PUBLISHED

CPU = torch.device("cpu")
TWINS = {name.replace("v1.6-vicuna", "next").replace("v1.6", "next"): count for name, count in PUBLISHED.items()}


@pytest.mark.parametrize("name", sorted(GEOMETRIES.keys() & TWINS.keys()))
def test_geometries_have_the_published_parameters(name: str) -> None:
    parameters, _ = count_parameters(geometry(name).config(0))
    assert round(parameters.total / 1e9, 2) == TWINS[name]


def test_every_published_geometry_is_held() -> None:
    assert {name for name in GEOMETRIES if not name.startswith("tiny")} - {"llava-0.8b"} <= TWINS.keys()


@pytest.mark.parametrize("name", ["tiny", "tiny-next"])
def test_a_filled_model_is_the_one_that_transformers_builds(name: str) -> None:
    model, processor = build(geometry(name), torch.float32, CPU)
    filled = model.pipeline.model
    again = AutoModelForImageTextToText.from_config(filled.config).eval()
    report = again.load_state_dict(filled.state_dict(), strict=False)
    assert not report.missing_keys and not report.unexpected_keys
    inputs = processor(
        images=drawn(geometry(name).picture, 3), text="USER: <image>\nwhat is it? ASSISTANT:", return_tensors="pt"
    )
    with torch.inference_mode():
        assert torch.equal(filled(**inputs).logits, again(**inputs).logits)


@pytest.mark.parametrize("name", ["tiny", "tiny-next"])
def test_the_same_geometry_has_the_same_numbers_every_time(name: str) -> None:
    first, second = (build(geometry(name), torch.float32, CPU)[0].pipeline.model.state_dict() for _ in range(2))
    assert [key for key, value in first.items() if not torch.equal(value, second[key])] == []


def test_weights_are_of_the_dtype_and_no_two_rows_are_the_same() -> None:
    model, _ = build(geometry("tiny"), torch.bfloat16, CPU)
    filled = model.pipeline.model
    assert {parameter.dtype for parameter in filled.parameters()} == {torch.bfloat16}
    table = filled.get_input_embeddings().weight
    assert len(torch.unique(table, dim=0)) == len(table)
    scales = [value for key, value in filled.named_parameters() if key.endswith("norm.weight")]
    assert scales and all((scale == 1).all() for scale in scales)


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_weights, "get_max_memory", lambda: {"cpu": 4 * 2**30})
    shape = geometry("llava-1.5-7b")
    assert not fits(shape, torch.bfloat16, CPU)
    with pytest.raises(DeviceError, match=r"llava-1\.5-7b in bfloat16 needs 14\.\d GiB, cpu has 4\.0") as caught:
        build(shape, torch.bfloat16, CPU)
    assert "--geometry llava-0.8b" in caught.value.fix


def test_an_unknown_geometry_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="llava-2") as caught:
        geometry("llava-2")
    assert "llava-next-34b" in caught.value.fix
