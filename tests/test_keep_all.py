"""`--keep all` is the stock model: the same logits, the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

import adafv
from tests.conftest import noise
from tests.spying import listening

QUESTIONS = ["what color is the sign?", "is there a red car?", "how many boats are there in the picture, and where?"]


@pytest.mark.parametrize("number", range(3))
def test_keep_all_equals_stock_transformers(llava: adafv.Model, llava_folder: Path, number: int) -> None:
    image, question = noise(90 + 40 * number, 70, seed=number), QUESTIONS[number]
    processor = AutoProcessor.from_pretrained(llava_folder)
    stock = LlavaForConditionalGeneration.from_pretrained(llava_folder, dtype=torch.float32).eval()
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=image, text=text, return_tensors="pt")
    with torch.no_grad():
        wanted = stock(**inputs).logits[:, -1]
        ids = stock.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    with listening(llava) as heard:
        answer = llava.ask(image, question, keep="all", max_new_tokens=12)
    assert (heard.logits[0] - wanted).abs().max() < 1e-5
    assert wanted.std() > 0.1
    assert heard.lengths[0] == inputs["input_ids"].shape[1]
    assert answer.text == processor.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("settings", [{"keep": 16}, {"keep": 4000}, {"keep": "100%"}, {"pruner": "none", "keep": 3}])
def test_everything_that_keeps_all_is_the_same(llava: adafv.Model, settings: dict[str, object]) -> None:
    image = noise(80, 60)
    whole = llava.ask(image, QUESTIONS[0], keep="all", max_new_tokens=6)
    answer = llava.ask(image, QUESTIONS[0], **settings, max_new_tokens=6)
    assert answer.text == whole.text
    assert answer.tokens is not None and answer.tokens.kept == answer.tokens.visual == 16
    assert answer.flops is not None and answer.flops.score == 0
    assert answer.flops.total == answer.flops.unpruned_total


def test_the_unused_vision_layer_is_neither_loaded_nor_run(llava: adafv.Model) -> None:
    layers = llava._checkpoint.model.model.vision_tower.encoder.layers
    assert len(layers) == 2  # of 3: LLaVA takes the output of the last but one
