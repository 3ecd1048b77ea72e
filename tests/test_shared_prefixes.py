"""What the prompts of a batch begin with is prefilled once, and no answer, draw or score changes by it."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig

import adafv
from adafv import Answer, Question, prefixes
from adafv.costs.plan import PromptPlan, plan_answer, plan_image
from adafv.decoding import Spliced
from adafv.generating import Generating, generate
from adafv.prompt import Prompt
from adafv.settings import RunSettings
from adafv.streaming.lengths import in_order
from adafv.streaming.tickets import Image, Ticket
from adafv.timing import Stopwatch
from tests import tiny
from tests.conftest import noise
from tests.spying import Heard, listening

TEXTS = ("what color is the sign?", "what?", "is there a red car? Please answer yes or no.", "and the house behind?")
SAMPLES = Path(adafv.__file__).parent / "demo" / "samples"
ALONE, ALWAYS = 10**9, -(10**9)  # tokens to be saved before heads are shared


@pytest.fixture(scope="module", params=["llava", "vipllava", "llava_next", "llava_onevision"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    changes = {"vision_feature_layers": [-2, 1]} if request.param == "vipllava" else {}
    folder = tiny.save(request.param, tmp_path_factory.mktemp("model"), **changes)
    return adafv.load(str(folder), dtype="float32", device_map="cpu")


def questions() -> list[Question]:
    """About two images of different sizes, each about either in turn."""
    pictures = [noise(60, 60), noise(130, 60, seed=1)]
    return [Question(number, pictures[number % 2], text) for number, text in enumerate(2 * TEXTS)]


def heard(model: adafv.Model, worth: int, **settings: Any) -> tuple[list[Answer], Heard]:
    with pytest.MonkeyPatch.context() as patch, listening(model) as sounds:
        patch.setattr(prefixes, "WORTH", worth)
        answers = list(model.batch(questions(), batch_size=8, max_new_tokens=6, **settings))
    assert [answer.error for answer in answers] == [None] * 8
    return answers, sounds


def run_through(sounds: Heard, forwards: int) -> int:
    """Tokens that went through the language model in its first forwards, padding included."""
    return sum(positions.numel() for positions in sounds.positions[:forwards])


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": "all"},
        {"keep": 5, "pruner": "saliency", "positions": "original"},
        {"keep": 5, "pruner": "uniform", "temperature": 0.8, "seed": 3},
        {"keep": 5, "pruner": "visionzip"},
        {"keep": "all", "temperature": 0.8, "top_p": 0.9},
        {"keep": 6, "select": "image"},
        {"keep": 6, "select": "image", "pruner": "mmtok", "positions": "original"},
        {"keep": 6, "select": "split"},
        {"keep": 6, "select": "split", "positions": "original", "temperature": 0.8},
    ],
    ids=str,
)
def test_shared_heads_change_no_token_and_no_score(model: adafv.Model, settings: dict[str, Any]) -> None:
    plain, alone = heard(model, ALONE, **settings)
    shared, together = heard(model, ALWAYS, **settings)
    assert [one.text for one in shared] == [one.text for one in plain]
    assert [one.tokens for one in shared] == [one.tokens for one in plain]
    for before, after in zip(alone.logits, together.logits[1:], strict=True):  # the first are of the heads themselves
        assert (before - after).abs().max() < 2e-5
    assert run_through(together, 2) < run_through(alone, 1)
    assert len(together.positions[0]) == 2  # images
    plain_last, shared_last = alone.positions[0][:, -1], together.positions[1][:, -1]
    assert torch.equal(plain_last, shared_last)


def test_heads_that_differ_are_not_shared(model: adafv.Model) -> None:
    _, sounds = heard(model, 1, keep=5, pruner="adafv")
    assert [len(positions) for positions in sounds.positions[:1]] == [8]
    assert run_through(sounds, 1) == 8 * max(sounds.lengths)


def test_questions_about_an_image_are_taken_together() -> None:
    """They come in turn, and two about one image differ in length more than those about two."""

    def ticket(number: int, key: str) -> Ticket:
        image: Future[Image] = Future()
        image.set_result(Image(key, None))
        return Ticket(number, None, Prompt("", [], [], (0, 1)), image)

    ready = [ticket(0, "a"), ticket(1, "b"), ticket(2, "a"), ticket(3, "b"), ticket(4, "c")]
    lengths = [10, 11, 19, 10, 10]
    assert [one.number for one in in_order(ready, lengths, by_image=True)] == [0, 2, 3, 1, 4]
    assert [one.number for one in in_order(ready, lengths, by_image=False)] == [0, 3, 4, 1, 2]


def test_a_little_is_not_worth_a_pass_of_its_own(model: adafv.Model) -> None:
    _, sounds = heard(model, ALONE, keep="all")
    assert len(sounds.positions[0]) == 8


def test_the_first_question_is_charged_with_what_the_others_share(llava: adafv.Model) -> None:
    plain, _ = heard(llava, ALONE, keep=5, pruner="saliency")
    shared, _ = heard(llava, ALWAYS, keep=5, pruner="saliency")
    geometry = adafv.flops.TextGeometry.from_config(llava._checkpoint.model.config)
    for number, (one, other) in enumerate(zip(plain, shared, strict=True)):
        assert one.flops is not None and other.flops is not None and other.tokens is not None
        before = len(llava.render(questions()[number], RunSettings()).before)
        whole, full = other.tokens.fed, other.tokens.text + other.tokens.visual
        head, unpruned = (before + 5, before + other.tokens.visual) if number > 1 else (0, 0)
        assert other.flops.prefill == adafv.flops.prefill(geometry, whole, head)
        saved = adafv.flops.prefill(geometry, full) - adafv.flops.prefill(geometry, full, unpruned)
        assert other.flops.unpruned_total == one.flops.unpruned_total - saved
        assert (other.flops.decode, other.memory_bytes) == (one.flops.decode, one.memory_bytes)
        assert other.flops.total == sum(
            getattr(other.flops, part) for part in ("vision", "projector", "score", "prefill", "decode")
        )
        assert (other.flops.total < one.flops.total) == (number > 1)


@pytest.mark.parametrize("pruner", ["none", "saliency", "divprune", "adafv"])
def test_a_plan_of_a_further_question_is_what_it_is_charged(llava: adafv.Model, pruner: str) -> None:
    answers, _ = heard(llava, ALWAYS, keep=5, pruner=pruner)
    config, run = llava._checkpoint.model.config, RunSettings(keep=5, pruner=pruner)
    for question, answer in zip(questions(), answers, strict=True):
        prompt = llava.render(question, run)
        assert answer.flops is not None and answer.tokens is not None
        lengths = PromptPlan(len(prompt.before), len(prompt.after), answer.tokens.generated)
        later = question.question_id not in (0, 1)
        width, height = question.image.size
        planned = plan_answer(config, plan_image(config, height, width), run, lengths, later=later).flops
        assert planned.total == answer.flops.total
        if (
            later and not run.by_image
        ):  # what is shared where all tokens are kept is no business of a choice by question
            planned = plan_answer(config, plan_image(config, height, width), run, lengths).flops
            assert planned.unpruned_total - planned.vision - planned.projector == answer.flops.unpruned_total
        else:
            assert planned.unpruned_total == answer.flops.unpruned_total


def test_flops_of_a_head_and_its_tails_are_those_of_the_tokens_that_run() -> None:
    geometry = adafv.flops.TextGeometry(48, 96, 2, 4, 4, 12, 320)
    whole, head = adafv.flops.prefill(geometry, 70), adafv.flops.prefill(geometry, 50)
    tail = adafv.flops.prefill(geometry, 70, 50)
    unmasked = 4 * 50 * 20 * 4 * 12 * 2  # of the head's tokens and those behind, which the full square counts as well
    assert head + tail == whole - unmasked + 2 * 48 * 320  # and the LM head at the last token of either


def spliced(width: int, heads: list[int], tails: list[int], seed: int) -> list[Spliced]:
    """Prompts on heads of these lengths, in turn, each with tails of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    fronts = [torch.randn(length, width, generator=generator) for length in heads]
    prompts = []
    for number, length in enumerate(tails):
        head = fronts[number % len(fronts)]
        embeddings = torch.cat([head, torch.randn(length, width, generator=generator)])
        places = torch.arange(len(embeddings))
        prompts.append(Spliced(embeddings, places, number, head=len(head), alike=number % len(fronts)))
    return prompts


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_rows_on_shared_heads_leave_as_they_would(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch, seed: int, temperature: float
) -> None:
    """Rows end at different lengths, so that the cache behind the heads is cut down more than once."""
    monkeypatch.setattr(prefixes, "WORTH", ALWAYS)
    network, run = llava._checkpoint.model, RunSettings(max_new_tokens=20, temperature=temperature)
    prompts = spliced(48, [9, 30, 4], [1, 3, 5, 2, 8, 13, 1], seed)
    rooms = [4, 20, 9, 1, 20, 6, 15]
    asked = [adafv.decoding.Spliced(**vars(one) | {"room": room}) for one, room in zip(prompts, rooms, strict=True)]
    together = generate(network, asked, run, Stopwatch())
    alone = [generate(network, [Spliced(**vars(one) | {"alike": None})], run, Stopwatch())[0] for one in asked]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert [one.shared for one in together] == [0, 0, 0, 9, 30, 4, 9]
    assert [one.shared for one in alone] == [0] * 7


@torch.inference_mode()
def test_a_sliding_window_keeps_heads_with_their_rows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Padding in the middle would take up places in the window."""
    monkeypatch.setattr(prefixes, "WORTH", ALWAYS)
    torch.manual_seed(0)
    text = MistralConfig(**tiny.text_config(320).to_diff_dict() | {"model_type": "mistral", "sliding_window": 7})
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=tiny.vision_config(), text_config=text)).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 2
    prompts = spliced(48, [9, 4], [1, 3, 5, 2], 0)
    together = generate(model, prompts, RunSettings(max_new_tokens=5), Stopwatch())
    with caplog.at_level(logging.INFO, logger="adafv"):
        Generating(model)
    assert "questions about one image are prefilled one by one: its attention has a sliding window" in caplog.text
    assert [one.shared for one in together] == [0] * 4


def test_other_attention_keeps_heads_with_their_rows(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    text = llava._checkpoint.model.config.get_text_config()
    assert not prefixes.refusal(llava._checkpoint.model)
    monkeypatch.setattr(text, "_attn_implementation_internal", "flash_attention_2")
    assert "flash_attention_2" in prefixes.refusal(llava._checkpoint.model)


@pytest.mark.parametrize("settings", [{"keep": "all"}, {"keep": "25%", "pruner": "uniform"}], ids=str)
def test_the_demo_answers_as_it_does_without(settings: dict[str, Any]) -> None:
    """As it is loaded, and by the usual rule of what is worth it."""
    demo, pictures = adafv.load("demo"), [SAMPLES / name for name in ("street.png", "village.png")]
    words = [("color", "sign"), ("color", "tree"), ("shape", "sign"), ("color", "house"), ("color", "car")]
    asked = [
        Question(number, picture, f"what {what} is the {thing}?")
        for number, (picture, (what, thing)) in enumerate((one, two) for one in pictures for two in words)
    ]
    shared = list(demo.batch(asked, batch_size=10, **settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo.pipeline.decoder, "share", False)
        alone = list(demo.batch(asked, batch_size=10, **settings))
    assert [one.text for one in shared] == [one.text for one in alone] and len({one.text for one in shared}) > 2
    spent = [[one.flops.prefill for one in answers if one.flops] for answers in (shared, alone)]
    assert sum(spent[0]) < sum(spent[1]) and len(spent[0]) == 10
