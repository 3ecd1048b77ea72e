"""The bundled checkpoint: small, complete, and it knows its scenes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import adafv
from adafv.demo import CHECKPOINT
from recipe.evaluation import pictures, probes, right_answers, share
from recipe.measures import needs_several, own_information
from recipe.questions import NUMBER
from recipe.stock import Stock
from recipe.worlds import HARD, held_out

SAMPLES = Path(__file__).parents[1] / "sample_images"


@pytest.fixture(scope="module")
def stock() -> Stock:
    return Stock.load(CHECKPOINT)


@pytest.fixture(scope="module")
def demo() -> adafv.Model:
    return adafv.load("demo", dtype="float32")


def test_it_is_small_and_complete() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 12_000_000
    assert not {path.suffix for path in CHECKPOINT.iterdir()} - {".json", ".jinja", ".safetensors"}
    model, info = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.dtype == torch.float16
    assert all(bool(weight.isfinite().all()) for weight in model.state_dict().values())


def test_the_processor_makes_as_many_placeholders_as_there_are_patches() -> None:
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    ids = processor(images=Image.new("RGB", (300, 200)), text="USER: <image>\nhi ASSISTANT:")["input_ids"][0]
    assert list(ids).count(processor.image_token_id) == 256


def test_stock_transformers_answers_the_sample_questions(stock: Stock) -> None:
    lines = [json.loads(line) for line in (SAMPLES / "questions.jsonl").read_text().splitlines()][::4]
    right = [
        stock.answer(Image.open(SAMPLES / line["image"]).convert("RGB"), line["text"]) == line["answer"]
        for line in lines
    ]
    assert sum(right) >= 0.85 * len(right)


def test_it_knows_held_out_scenes(demo: adafv.Model) -> None:
    asked = probes(per_kind=10)
    right = right_answers(demo, asked, pictures(asked), "all", "none")
    assert share(right, [probe.scene for probe in asked]).percent > 85


def test_it_knows_held_out_hard_scenes(demo: adafv.Model) -> None:
    asked = probes(10, held_out(HARD))
    right = right_answers(demo, asked, pictures(asked), "all", "none")
    assert share(right, [probe.scene for probe in asked]).percent > 80


def test_it_answers_the_hard_sample_questions(demo: adafv.Model) -> None:
    lines = [json.loads(line) for line in (SAMPLES / "hard_questions.jsonl").read_text().splitlines()]
    questions = [adafv.Question(line["question_id"], SAMPLES / line["image"], line["text"]) for line in lines]
    answers = demo.batch(questions, keep="all", pruner="none", batch_size=16)
    right = [answer.text == line["answer"] for answer, line in zip(answers, lines, strict=True)]
    assert sum(right) >= 0.85 * len(right)


def test_reading_a_number_takes_several_of_its_patches(stock: Stock) -> None:
    """Slow: 25 numbers, each read by stock transformers under several choices of patches, without a batch."""
    numbers = [probe for probe in probes(25, held_out(HARD)) if probe.kind == NUMBER]
    result = needs_several(stock, numbers, some=(0, 2))
    assert result["0"]["right"] < 35
    assert result["2"]["right"] < result["all"]["right"] - 25
    assert result["all"]["ideal"] == 100


def test_a_quarter_of_its_tokens_answers_the_sample_questions(demo: adafv.Model) -> None:
    lines = [json.loads(line) for line in (SAMPLES / "questions.jsonl").read_text().splitlines()]
    questions = [adafv.Question(line["question_id"], SAMPLES / line["image"], line["text"]) for line in lines]
    answers = demo.batch(questions, keep="25%", batch_size=16)
    right = [answer.text == line["answer"] for answer, line in zip(answers, lines, strict=True)]
    assert sum(right) >= 0.9 * len(right)


def test_a_thing_whose_tokens_are_gone_is_unknown(stock: Stock) -> None:
    """Every token carries its own facts and no other thing's: that is what makes the curves mean anything.

    Slow: fewer questions would leave the shares to chance.
    """
    result = own_information(stock, probes(per_kind=30))
    assert result["all patches"]["all"][0] > 90
    assert result["without object and fringe"]["all"][0] < 40
