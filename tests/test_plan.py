"""Crops and tokens before anything is loaded: as transformers expands them, and as our engine reports them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig, LlavaNextImageProcessorPil, LlavaNextProcessor

import adafv
from adafv.costs.plan import PromptPlan, plan_answer, plan_image
from adafv.errors import InputError
from adafv.families.base import ImagePlan
from adafv.loading.reading import read_config
from adafv.records import Answer
from adafv.settings import LoadSettings, RunSettings
from tests import families, tiny
from tests.conftest import noise
from tests.published import CONFIGS, NEXT_PREPROCESSOR, PINPOINTS

SIDE = 24  # patches of 14 pixels along the 336 of a crop
NEXT = AutoConfig.for_model(**copy.deepcopy(CONFIGS["llava-v1.6-vicuna-7b"]))
ONE_CROP = AutoConfig.for_model(**copy.deepcopy(CONFIGS["llava-1.5-7b"]))
STRIPS = [(1, 1), (1, 90), (90, 1), (1, 2000), (2000, 1), (40, 800), (800, 40), (3, 333), (1999, 7)]
TILES = [(336, 336), (336, 672), (672, 672), (336, 1008), (337, 335)]


def processor() -> LlavaNextProcessor:
    """With the published image processor, and a tokenizer that knows `<image>` as 3."""
    return LlavaNextProcessor(
        LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size=336, image_grid_pinpoints=PINPOINTS),
        tiny.tokenizer(), patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def expanded(width: int, height: int) -> tuple[int, int]:
    """Placeholders and crops that transformers makes of an image."""
    inputs = processor()(images=Image.new("RGB", (width, height)), text="<image>", return_tensors="pt")
    return int((inputs["input_ids"] == 3).sum()), inputs["pixel_values"].shape[1]


def random_sizes(count: int, longest: int) -> list[tuple[int, int]]:
    """(width, height), evenly over their logarithms."""
    rng = np.random.default_rng(50)
    return [(int(w), int(h)) for w, h in np.exp(rng.uniform(0, np.log(longest), (count, 2))).round()]


@pytest.mark.parametrize(("width", "height"), [*random_sizes(30, 1600), *STRIPS, *TILES])
def test_next_counts_what_the_processor_expands(width: int, height: int) -> None:
    plan = plan_image(NEXT, height, width)
    assert (plan.packed, plan.crops) == expanded(width, height)
    assert sum(rows * columns for rows, columns in plan.grids) == plan.visual
    assert plan.grids[0] == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("width", "height", "plan"),
    [
        (640, 480, ImagePlan(5, 2304, 36, ((24, 24), (36, 48)), (576, 432, 432, 432, 432))),
        (336, 336, ImagePlan(3, 1152, 24, ((24, 24), (24, 24)), (576, 288, 288))),
        (90, 1, ImagePlan(3, 576, 0, ((24, 24),), (576, 0, 0))),
        (1, 90, ImagePlan(3, 576, 24, ((24, 24),), (576, 0, 0))),
        (1, 800, ImagePlan(4, 576, 72, ((24, 24),), (576, 0, 0, 0))),
    ],
)
def test_next(width: int, height: int, plan: ImagePlan) -> None:
    assert plan_image(NEXT, height, width) == plan


@pytest.mark.parametrize(("width", "height"), [*STRIPS, *TILES])
def test_one_crop_takes_any_size(width: int, height: int) -> None:
    assert plan_image(ONE_CROP, height, width) == ImagePlan(1, 576, 0, ((24, 24),))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_no_pixels(width: int, height: int) -> None:
    with pytest.raises(InputError, match=f"{width} x {height}"):
        plan_image(NEXT, height, width)


@pytest.fixture(scope="module")
def next_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops and grids as published, widths and depths small."""
    words = tiny.tokenizer()
    words.chat_template = tiny.TEMPLATE
    config = families.reduced(CONFIGS["llava-v1.6-vicuna-7b"], vision_layers=2) | dict(image_token_index=3)
    config["text_config"] |= dict(vocab_size=len(words), bos_token_id=0, eos_token_id=1, pad_token_id=2)
    folder = tmp_path_factory.mktemp("next")
    return families.save(folder, config, words, NEXT_PREPROCESSOR, template=tiny.TEMPLATE)


@pytest.fixture(scope="module")
def next_model(next_folder: Path) -> adafv.Model:
    return adafv.load(str(next_folder), dtype="float32")


def check(answer: Answer, config: Any, size: tuple[int, int], keep: str, pruner: str = "adafv") -> None:
    """The plan must say what the answer reports; which signal chose a token is not planned."""
    assert answer.tokens and answer.flops and answer.memory_bytes
    image = plan_image(config, size[1], size[0])
    tokens = answer.tokens
    after = answer.flops.score // (2 * image.visual * config.text_config.hidden_size)
    prompt = PromptPlan(tokens.text - after, after, tokens.generated)
    plan = plan_answer(config, image, RunSettings(keep=keep, pruner=pruner), prompt, bytes_per_value=4)
    for field in ("visual", "kept", "newlines", "crops", "text", "generated"):
        assert getattr(plan.tokens, field) == getattr(tokens, field), field
    assert plan.flops == answer.flops
    assert plan.memory_bytes == answer.memory_bytes
    assert plan.speedup_bound == answer.flops.unpruned_total / answer.flops.total


@pytest.mark.parametrize(
    ("size", "keep"),
    [
        ((640, 480), "128"),
        ((64, 48), "all"),
        ((200, 700), "25%"),
        ((90, 1), "all"),
        ((1, 90), "50%"),
        ((40, 800), "all"),
    ],
)
def test_next_plans_what_the_engine_reports(
    next_model: adafv.Model, next_folder: Path, size: tuple[int, int], keep: str
) -> None:
    answer = next_model.ask(noise(*size), "what color is the sign?", keep=keep, max_new_tokens=3)
    check(answer, read_config(LoadSettings(str(next_folder))), size, keep)


@pytest.mark.parametrize("keep", ["all", "25%", "1", "999"])
@pytest.mark.parametrize("pruner", ["adafv", "saliency", "none"])
def test_one_crop_plans_what_the_engine_reports(llava: adafv.Model, llava_folder: Path, keep: str, pruner: str) -> None:
    answer = llava.ask(noise(70, 56), "is there a red car?", keep=keep, pruner=pruner, max_new_tokens=3)
    check(answer, read_config(LoadSettings(str(llava_folder))), (70, 56), keep, pruner)
