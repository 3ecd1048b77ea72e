"""The report of an answer: tokens add up, stages add up, and the JSON is the documented one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import adafv
from adafv import Question, flops
from adafv.families.tower import layers_that_run
from adafv.records import Comparison
from tests.cli_fakes import ANSWER
from tests.conftest import noise
from tests.tiny import PATCHES

QUESTION = "what color is the sign?"


def test_json_has_the_documented_keys_in_order_and_no_nan(llava: adafv.Model) -> None:
    answer = llava.ask(noise(60, 60), QUESTION, keep=5, max_new_tokens=1)
    record = json.loads(json.dumps(answer.to_json(), allow_nan=False))
    assert list(record) == [
        "question_id", "prompt", "text", "answer_id", "model_id", "metadata", "image", "finish_reason", "pruner",
        "keep", "tokens", "latency_s", "flops", "memory_bytes", "error",
    ]  # fmt: skip
    assert list(record["tokens"])[:8] == [
        "visual", "kept", "from_saliency", "from_similarity", "from_both", "text", "generated", "crops",
    ]  # fmt: skip
    assert list(record["latency_s"]) == [
        "preprocess", "vision", "score", "prune", "prefill", "ttft", "decode", "tpot", "total", "server",
    ]  # fmt: skip
    assert list(record["flops"]) == ["vision", "projector", "score", "prefill", "decode", "total", "unpruned_total"]
    assert list(record["memory_bytes"]) == ["kv_cache", "unpruned_kv_cache", "peak"]
    assert record["latency_s"]["tpot"] is None  # one token has no time per later token
    assert record["error"] is None


@pytest.mark.parametrize("keep", [1, 2, 3, 5, 8, 15])
def test_tokens_add_up(llava: adafv.Model, keep: int) -> None:
    tokens = llava.ask(noise(60, 60), QUESTION, keep=keep, max_new_tokens=2).tokens
    assert tokens is not None
    assert (tokens.visual, tokens.kept, tokens.crops, tokens.newlines) == (16, keep, 1, 0)
    assert tokens.from_saliency is not None and tokens.from_similarity is not None and tokens.from_both is not None
    assert tokens.from_saliency + tokens.from_similarity - tokens.from_both == keep


def test_stages_add_up(llava: adafv.Model) -> None:
    latency = llava.ask(noise(60, 60), QUESTION, keep=5, max_new_tokens=6).latency
    assert latency is not None and latency.tpot is not None
    assert latency.ttft == pytest.approx(latency.vision + latency.score + latency.prune + latency.prefill)
    assert latency.total == pytest.approx(latency.preprocess + latency.ttft + latency.decode)
    assert latency.tpot * 5 == pytest.approx(latency.decode)
    assert min(latency.preprocess, latency.vision, latency.score, latency.prune, latency.prefill, latency.decode) > 0


def test_flops_and_cache_are_those_of_the_tokens_fed(llava: adafv.Model) -> None:
    answer = llava.ask(noise(60, 60), QUESTION, keep=5, max_new_tokens=6)
    assert answer.flops is not None and answer.tokens is not None and answer.memory_bytes is not None
    geometry = flops.TextGeometry.from_config(llava._checkpoint.model.config)
    prompt, generated = answer.tokens.text + 5, answer.tokens.generated
    assert answer.flops.prefill == flops.prefill(geometry, prompt)
    assert answer.flops.decode == flops.decode(geometry, prompt, generated)
    parts = ("vision", "projector", "score", "prefill", "decode")
    assert answer.flops.total == sum(getattr(answer.flops, part) for part in parts)
    unpruned = answer.tokens.text + 16
    assert answer.flops.unpruned_total == (
        answer.flops.vision + answer.flops.projector
        + flops.prefill(geometry, unpruned) + flops.decode(geometry, unpruned, generated)
    )  # fmt: skip
    values = 2 * 2 * 2 * 12 * 4  # keys and values, 2 layers, 2 heads of 12, float32
    assert answer.memory_bytes.kv_cache == values * (prompt + generated - 1)
    assert answer.memory_bytes.unpruned_kv_cache == values * (unpruned + generated - 1)


def test_tiles_and_newlines_are_counted_and_a_shared_encoding_once(tiled: adafv.Model) -> None:
    config = tiled.pipeline.model.config
    first, second = tiled.answer(noise(150, 90), [QUESTION, QUESTION], keep=5, max_new_tokens=3)
    whole = tiled.ask(noise(150, 90), QUESTION, keep="all", max_new_tokens=3)
    assert first.flops and first.tokens and first.memory_bytes and second.flops and whole.flops and whole.tokens
    tokens, generated = whole.tokens, first.tokens.generated
    assert tokens.crops > 1 and tokens.newlines > 0 and first.tokens.newlines == 0
    vision = flops.VisionGeometry.from_config(config, layers_that_run(config))
    text = flops.TextGeometry.from_config(config)
    encoding = flops.vision(vision, tokens.crops) + flops.projector(vision, tokens.crops * PATCHES)
    assert first.flops.vision + first.flops.projector == whole.flops.vision + whole.flops.projector == encoding
    unpruned = tokens.text + tokens.visual + tokens.newlines
    answering = flops.prefill(text, unpruned) + flops.decode(text, unpruned, generated)
    assert first.flops.unpruned_total == encoding + answering
    assert (second.flops.vision, second.flops.projector, second.flops.unpruned_total) == (0, 0, answering)
    values = 2 * 2 * 2 * 12 * 4  # keys and values, 2 layers, 2 heads of 12, float32
    assert first.memory_bytes.kv_cache == values * (tokens.text + 5 + generated - 1)
    assert first.memory_bytes.unpruned_kv_cache == values * (unpruned + generated - 1)


def test_pruners_that_ignore_the_text_are_not_charged_for_it(llava: adafv.Model) -> None:
    costs = {}
    for pruner in ("adafv", "similarity", "saliency", "uniform", "random"):
        answer = llava.ask(noise(60, 60), QUESTION, keep=5, pruner=pruner, max_new_tokens=1)
        assert answer.flops is not None and answer.tokens is not None
        costs[pruner] = answer.flops.score
        assert (answer.tokens.from_both is None) == (pruner != "adafv")
    after = len(llava._prompter.prompt(QUESTION).after)
    assert costs == {
        "adafv": 2 * after * 16 * 48,
        "similarity": 2 * after * 16 * 48,
        "saliency": 0,
        "uniform": 0,
        "random": 0,
    }


def test_compare_adds_the_unpruned_run(llava: adafv.Model) -> None:
    plain = llava.ask(noise(60, 60), QUESTION, keep=5, max_new_tokens=6)
    answer = llava.ask(noise(60, 60), QUESTION, keep=5, max_new_tokens=6, compare=True)
    whole = llava.ask(noise(60, 60), QUESTION, keep="all", max_new_tokens=6)
    assert answer.compare is not None and answer.latency is not None
    assert answer.text == plain.text and answer.compare.text == whole.text
    assert answer.compare.agrees == (plain.text == whole.text)
    assert answer.compare.speedup_ttft == pytest.approx(answer.compare.ttft_s / answer.latency.ttft)
    assert answer.compare.speedup_total == pytest.approx(answer.compare.total_s / answer.latency.total)
    assert answer.to_json()["compare"]["text"] == whole.text


def test_a_speed_up_is_how_many_times_faster_the_pruned_run_was() -> None:
    fast = ANSWER.latency_s
    assert fast is not None
    slow = replace(fast, ttft=3 * fast.ttft, total=2 * fast.total)
    compared = Comparison.of("red", fast, "blue", slow)
    assert (compared.speedup_ttft, compared.speedup_total) == pytest.approx((3, 2))
    assert (compared.text, compared.agrees) == ("blue", False)
    assert (compared.ttft_s, compared.total_s) == (slow.ttft, slow.total)


@pytest.mark.parametrize("field", ["question_id", "prompt", "text", "model_id", "pruner", "keep"])
def test_answers_that_differ_in_one_thing_have_different_ids(field: str) -> None:
    assert replace(ANSWER, **{field: "another"}).answer_id != ANSWER.answer_id
    assert replace(ANSWER, latency_s=None).answer_id == ANSWER.answer_id  # the same answer, later


def test_answer_ids_come_from_the_content(llava: adafv.Model) -> None:
    first, again, other = (
        next(llava.batch([Question(name, noise(60, 60), QUESTION)], keep=5, max_new_tokens=2)) for name in (1, 1, 2)
    )
    assert first.answer_id == again.answer_id != other.answer_id
    assert len(first.answer_id) == 22


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": "200%"}, "200%"), ({"pruner": "best"}, "'best'"), ({"positions": "none"}, "'none'"),
        ({"max_new_tokens": 0}, "0 generates nothing"), ({"temperature": -1}, "-1"), ({"top_p": 0}, "top_p: 0"),
        ({"temperature": float("nan")}, "nan"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_refused(llava: adafv.Model, settings: dict[str, object], said: str) -> None:
    with pytest.raises(adafv.InputError) as raised:
        llava.ask(noise(60, 60), QUESTION, **settings)
    assert said in raised.value.what and raised.value.fix


def test_a_prompt_longer_than_the_context_is_refused(llava: adafv.Model) -> None:
    with pytest.raises(adafv.InputError, match="the model has 512"):
        llava.ask(noise(60, 60), "what color? " * 200, keep=5)
