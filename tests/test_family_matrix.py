"""Every published LLaVA that is supported, on its own configuration values and files, with small random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import adafv
from tests import families, published
from tests.conftest import noise
from tests.families import vicuna_tokenizer
from tests.published import CONFIGS, INST, LLAMA3_TEXT, MARKED, TURNS, VICUNA_SYSTEM
from tests.stock import Stock, encoded, run


@dataclass(frozen=True)
class Case:
    """One checkpoint's files beside its config, and what stands around the image and the question."""

    before: str
    after: str
    words: Callable[[], Any]
    preprocessor: dict[str, Any]
    processor: dict[str, Any] | None = None
    template: str | None = None
    bos: str = "<s> "


PLAIN = ("USER: ", " ASSISTANT:")
TALL = (f"{VICUNA_SYSTEM} USER: ", " ASSISTANT:")
CHATML = ("<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n", "<|im_end|><|im_start|>assistant\n")
LLAMA3 = ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
CASES = {
    "llava-1.5-7b": Case(
        *PLAIN, lambda: vicuna_tokenizer("<image>", "<pad>"), published.CLIP_PREPROCESSOR, published.PROCESSOR, MARKED
    ),
    "llava-1.5-13b": Case(
        *PLAIN, lambda: vicuna_tokenizer("<image>", "<pad>"), published.CLIP_OLD, published.PROCESSOR_OLD, TURNS
    ),
    "llava-1.5-13b, first revision": Case(
        *PLAIN, lambda: vicuna_tokenizer("<image>", "<pad>"), published.CLIP_OLDER, None, None
    ),
    "llava-v1.6-vicuna-7b": Case(
        *PLAIN, lambda: vicuna_tokenizer("<image>"), published.NEXT_PREPROCESSOR, published.NEXT_PROCESSOR, MARKED
    ),
    "llava-v1.6-vicuna-13b": Case(*TALL, lambda: vicuna_tokenizer("<image>"), published.NEXT_OLD),
    "llava-v1.6-mistral-7b": Case(
        "[INST] ", " [/INST]", lambda: vicuna_tokenizer("<image>", "<pad>"), published.NEXT_OLD,
        published.NEXT_PROCESSOR_OLD, INST,
    ),
    "llava-v1.6-34b": Case(
        *CHATML, families.yi_tokenizer, published.NEXT_PREPROCESSOR, published.NEXT_PROCESSOR, bos=""
    ),
    "vip-llava-7b": Case(
        f"{VICUNA_SYSTEM}###Human: ", "###Assistant:", lambda: vicuna_tokenizer("<image>", "<pad>"),
        published.CLIP_OLD, published.PROCESSOR_OLD,
    ),
    "bakLlava-v1": Case(*PLAIN, lambda: vicuna_tokenizer("<image>", "<pad>"), published.CLIP_OLDER),
    "llava-llama-3-8b": Case(
        *LLAMA3, lambda: families.llama3_tokenizer(LLAMA3_TEXT), published.CLIP_EXPORTED, bos="<|begin_of_text|>"
    ),
}  # fmt: skip
QUESTION = "What is shown in this image?"
VICUNAS = {"llava-1.5-7b", "llava-1.5-13b", "llava-1.5-13b, first revision", "llava-v1.6-vicuna-7b",
           "llava-v1.6-vicuna-13b"}  # fmt: skip
SIZES = [(336, 336), (90, 700), (1000, 120)]


@dataclass(frozen=True)
class Loaded:
    case: Case
    config: dict[str, Any]
    model: adafv.Model
    stock: Stock

    @property
    def text(self) -> str:
        return f"{self.case.before}<image>\n{QUESTION}{self.case.after}"

    @property
    def next(self) -> bool:
        return bool(self.config["model_type"] == "llava_next")


def test_every_published_config_has_its_row() -> None:
    assert CASES.keys() == CONFIGS.keys()


@pytest.fixture(scope="module", params=CASES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    case, config = CASES[request.param], CONFIGS[request.param]
    small = families.reduced(config, vision_layers=24 if config["model_type"] == "vipllava" else 4)
    folder = families.save(
        tmp_path_factory.mktemp("family"), small, case.words(), case.preprocessor, processor=case.processor,
        template=case.template, generation=published.GENERATION.get(request.param),
    )  # fmt: skip
    return Loaded(case, config, adafv.load(str(folder), dtype="float32", device_map="cpu"), Stock.load(folder))


def test_text_span_is_exactly_the_question_and_the_template_s_tail(loaded: Loaded) -> None:
    prompt = loaded.model._prompter.prompt(QUESTION)
    assert prompt.text == loaded.text
    decode = loaded.stock.processor.tokenizer.decode
    assert decode(prompt.before) == loaded.case.bos + loaded.case.before
    assert decode(prompt.after) == f"\n{QUESTION}{loaded.case.after}"
    ids = loaded.stock.inputs(noise(336, 336), loaded.text)["input_ids"][0].tolist()
    image_id = loaded.config["image_token_index"]
    assert ids.count(image_id) == (1176 if loaded.next else 576)
    assert prompt.before == ids[: ids.index(image_id)]
    assert prompt.after == ids[ids.index(image_id) + ids.count(image_id) :]


def test_the_published_protocol_asks_as_llava_s_own_code_does(loaded: Loaded) -> None:
    """`conv_vicuna_v1` for the Vicunas, which answers of both versions were evaluated with; others as documented."""
    run = adafv.RunSettings(protocol="published")
    vicuna = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        f"detailed, and polite answers to the user's questions. USER: <image>\n{QUESTION} ASSISTANT:"
    )
    is_vicuna = next(name for name, config in CONFIGS.items() if config is loaded.config) in VICUNAS
    asked = adafv.Question(0, None, QUESTION)
    assert loaded.model.render(asked, run).text == (vicuna if is_vicuna else loaded.text)
    setup = loaded.model.setup(run)
    assert setup is not None and setup.system == ("vicuna" if is_vicuna else None)
    assert setup.pad == (not loaded.next)
    if is_vicuna:
        assert "Be kind. USER" in loaded.model.render(asked, replace(run, system="Be kind.")).text


def test_keep_all_equals_stock(loaded: Loaded) -> None:
    image = noise(700, 300)
    visual = loaded.stock.visual(image, loaded.text)
    assert (encoded(loaded.model, image)[0].packed - visual).abs().max() < 1e-5
    wanted = loaded.stock.logits(image, loaded.text)
    logits, (outcome,) = run(loaded.model, (image, QUESTION), keep="all", max_new_tokens=6)
    assert (logits - wanted).abs().max() < 1e-5
    assert wanted.std() > 0.1
    assert outcome.decoded.ids == loaded.stock.generated(image, loaded.text, 6)


@pytest.mark.parametrize("keep", [63, "25%"])
def test_pruned_answer_has_exactly_the_budget(loaded: Loaded, keep: int | str) -> None:
    answer = loaded.model.ask(noise(640, 480), QUESTION, keep=keep, max_new_tokens=2)
    assert answer.tokens is not None
    visual = 2304 if loaded.next else 576
    wanted = keep if isinstance(keep, int) else visual // 4
    assert (answer.tokens.visual, answer.tokens.kept, answer.tokens.newlines) == (visual, wanted, 0)
    assert answer.tokens.crops == (5 if loaded.next else 1)


@pytest.mark.parametrize("keep", ["all", 64])
def test_batch_of_mixed_sizes_equals_singles(loaded: Loaded, keep: int | str) -> None:
    asked = [(noise(*size, seed=i), QUESTION if i % 2 else "Why?") for i, size in enumerate(SIZES)]
    together, outcomes = run(loaded.model, *asked, keep=keep, max_new_tokens=2)
    for row, one in enumerate(asked):
        alone, (outcome,) = run(loaded.model, one, keep=keep, max_new_tokens=2)
        assert (alone[0] - together[row]).abs().max() < 5e-6
        assert outcome.decoded == outcomes[row].decoded
        assert torch.equal(outcome.kept.places, outcomes[row].kept.places)
    assert torch.pdist(together).min() > 1e-3
