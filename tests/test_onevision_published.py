"""Published LLaVA-OneVision: its sizes, its token counts and its prompt, on its own configuration and files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from transformers import AutoConfig, LlavaOnevisionImageProcessorPil

import adafv
from adafv.costs.parameters import count_parameters
from adafv.costs.plan import plan_image
from tests import families, published
from tests.conftest import noise
from tests.stock import Stock, encoded, onevision_tokens, run
from tests.test_plan import random_sizes

QUESTION = "What is shown in this image?"
PROMPT = f"<|im_start|>user <image>\n{QUESTION}<|im_end|><|im_start|>assistant\n"
FILES = {"llava-onevision-qwen2-0.5b-ov": 1.79e9, "llava-onevision-qwen2-7b-ov": 16.06e9}  # bytes of weights, 16 bit


@pytest.mark.parametrize("name", FILES)
def test_parameters_are_those_of_the_published_files(name: str) -> None:
    config = AutoConfig.for_model(**copy.deepcopy(published.ONEVISION[name]))
    parameters, _ = count_parameters(config)
    assert 2 * parameters.total == pytest.approx(FILES[name], rel=0.003)


def test_tokens_are_what_the_processor_expands() -> None:
    config = AutoConfig.for_model(**copy.deepcopy(published.ONEVISION["llava-onevision-qwen2-7b-ov"]))
    images = LlavaOnevisionImageProcessorPil(**published.ONEVISION_PREPROCESSOR)
    sizes = [*random_sizes(60, 6000), (384, 384), (1024, 899), (2304, 2304), (2305, 100), (1, 1), (3000, 4)]
    for width, height in sizes:
        plan = plan_image(config, height, width)
        assert plan.packed == onevision_tokens(config, images, width, height), (width, height)
        assert plan.visual <= 729 * (1 + 9 * 1.21)
    assert plan_image(config, 2304, 2304).grids == ((27, 27), (81, 81))


def saved(folder: Path, template: str | None) -> Path:
    """The 0.5B with narrow layers: crops, ids and files as published."""
    config = copy.deepcopy(published.ONEVISION["llava-onevision-qwen2-0.5b-ov"])
    config["text_config"] |= dict(
        hidden_size=56, intermediate_size=96, num_attention_heads=7, num_hidden_layers=2, num_key_value_heads=1
    )
    config["vision_config"] |= dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=3)
    return families.save(
        folder, config, families.qwen_tokenizer(), published.ONEVISION_PREPROCESSOR,
        processor=published.ONEVISION_PROCESSOR, template=template,
    )  # fmt: skip


@pytest.mark.parametrize("template", [published.SPACED, None], ids=["its template", "no template"])
def test_keep_all_equals_stock_on_published_files(tmp_path: Path, template: str | None) -> None:
    folder = saved(tmp_path, template)
    model, stock = adafv.load(str(folder), dtype="float32", device_map="cpu"), Stock.load(folder)
    prompt, image = model._prompter.prompt(QUESTION), noise(700, 300)
    assert prompt.text == PROMPT
    assert prompt.before == stock.processor.tokenizer("<|im_start|>user ")["input_ids"]
    (encoding,) = encoded(model, image)
    assert (encoding.packed - stock.visual(image, PROMPT)).abs().max() < 1e-5
    assert (encoding.crops, encoding.grids) == (3, ((27, 27), (23, 54)))
    logits, (outcome,) = run(model, (image, QUESTION), keep="all", max_new_tokens=3)
    wanted = stock.logits(image, PROMPT)
    assert (logits - wanted).abs().max() < 1e-5 and wanted.std() > 0.1
    assert outcome.decoded.ids == stock.generated(image, PROMPT, 3)
    answer = model.ask(image, QUESTION, keep="25%", max_new_tokens=1)
    assert answer.tokens is not None and answer.tokens.kept == 493  # of 1971
