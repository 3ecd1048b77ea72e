"""The second bundled checkpoint: small, complete, and what it knows it knows from the view that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import adafv
from adafv.demo import BUNDLED
from adafv.records import Question
from recipe.next.gates import measure
from recipe.next.heldout import SEEDS, probes
from recipe.next.samples import CHOSEN, FILE, NUMBER_QUESTION, questions, scenes
from recipe.stock import Stock

CHECKPOINT = BUNDLED["demo-next"]
SAMPLES = Path(__file__).parents[1] / "sample_images"


def samples() -> list[dict]:
    return [json.loads(line) for line in (SAMPLES / FILE).read_text().splitlines()]


@pytest.fixture(scope="module")
def demo() -> adafv.Model:
    return adafv.load("demo-next", dtype="float32")


def test_it_is_small_and_complete() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 10_000_000
    assert not {path.suffix for path in CHECKPOINT.iterdir()} - {".json", ".jinja", ".safetensors"}
    model, info = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.config.model_type == "llava_next" and model.dtype == torch.float16
    assert all(bool(weight.isfinite().all()) for weight in model.state_dict().values())


def test_stock_transformers_gives_the_same_answers(demo: adafv.Model) -> None:
    stock, lines = Stock.load(CHECKPOINT), samples()[::4]
    for line in lines:
        answer = demo.ask(SAMPLES / line["image"], line["text"], keep="all", pruner="none")
        assert answer.text == stock.answer(Image.open(SAMPLES / line["image"]).convert("RGB"), line["text"])


def test_the_processor_makes_as_many_placeholders_as_the_engine_has_tokens(demo: adafv.Model) -> None:
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    for name in CHOSEN:
        image = Image.open(SAMPLES / f"{name}.png").convert("RGB")
        ids = processor(images=image, text="USER: <image>\nhi ASSISTANT:")["input_ids"][0]
        encoded = demo.encode(image)[0]
        assert list(ids).count(processor.image_token_id) == encoded.visual + encoded.newlines


def test_the_samples_are_what_the_recipe_makes() -> None:
    made = [pair for name, wide in scenes().items() for pair in questions(wide, CHOSEN[name])]
    assert [(line["text"], line["answer"]) for line in samples()] == made


@pytest.mark.parametrize("keep", ["all", "25%"])
def test_it_answers_the_sample_questions(demo: adafv.Model, keep: str) -> None:
    lines = samples()
    asked = [Question(line["question_id"], SAMPLES / line["image"], line["text"]) for line in lines]
    answers = demo.batch(asked, keep=keep, batch_size=16)
    right = [answer.text == line["answer"] for answer, line in zip(answers, lines, strict=True)]
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.parametrize("keep", ["25%", "12.5%"])
def test_a_number_that_only_a_tile_shows_is_read_from_part_of_the_tokens(demo: adafv.Model, keep: str) -> None:
    (line,) = (line for line in samples() if (line["image"], line["text"]) == ("wide.png", NUMBER_QUESTION))
    assert demo.ask(SAMPLES / "wide.png", NUMBER_QUESTION, keep=keep).text == line["answer"]


def test_each_view_is_needed(tmp_path: Path) -> None:
    """Few questions, far bounds: `recipe.next.gates` is the judge."""
    seed = SEEDS["tune"]
    found = measure(CHECKPOINT, probes(8, seed), seed, tmp_path / "pictures", processes=1)
    dense, tiles, thumbnail = (found[name]() for name in ("dense", "without tiles", "without thumbnail"))
    assert dense["kind"]["all"][0] > 80
    assert tiles["number"][0] < dense["kind"]["number"][0] - 40
    assert thumbnail["biggest"][0] < dense["kind"]["biggest"][0] - 25
    places = found["shuffled"]()
    assert places["side"][0] < dense["kind"]["side"][0] - 15
