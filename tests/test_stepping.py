"""Decoding in steps of few shapes: the same answers, positions and scores as by `generate`, and what is done if not.

Where there is no GPU the same path runs with the model's own forward in place of a compiled one, and through torch's
tracer without a compiler behind it.
"""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig

import adafv
from adafv import Answer, Question, generating, prefixes, stepping
from adafv.decoding import Spliced
from adafv.errors import InputError
from adafv.generating import Generating, generate
from adafv.settings import LoadSettings, RunSettings
from adafv.stepping import Steps
from adafv.timing import Stopwatch
from tests import chatter, tiny
from tests.chatter import prompts
from tests.cli_fakes import adafv as adafv_command
from tests.conftest import noise
from tests.spying import Heard, listening

TEXTS = ("what color is the sign?", "what?", "is there a red car? Please answer yes or no.", "and the house behind?")


def stepped(network: Any, forward: Callable[..., Any] | None = None) -> Generating:
    return Generating(network, compile=True, steps=Steps(network, forward or network.__call__))


def questions() -> list[Question]:
    """About two images of different sizes, each about either in turn."""
    pictures = [noise(60, 60), noise(130, 60, seed=1)]
    return [Question(number, pictures[number % 2], text) for number, text in enumerate(TEXTS)]


def heard(model: adafv.Model, decoder: Generating, **settings: Any) -> tuple[list[Answer], Heard]:
    with pytest.MonkeyPatch.context() as patch, listening(model) as sounds:
        patch.setattr(prefixes, "WORTH", -(10**9))
        patch.setattr(model.pipeline, "decoder", decoder)
        answers = list(model.batch(questions(), batch_size=4, max_new_tokens=6, **settings))
    assert [answer.error for answer in answers] == [None] * 4
    return answers, sounds


@pytest.fixture(scope="module", params=["llava", "llava_next", "vipllava", "llava_onevision"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    changes = {"vision_feature_layers": [-2, 1]} if request.param == "vipllava" else {}
    folder = tiny.save(request.param, tmp_path_factory.mktemp("model"), **changes)
    return adafv.load(str(folder), dtype="float32", device_map="cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": "all"},
        {"keep": 5, "pruner": "saliency", "positions": "original"},
        {"keep": 5, "temperature": 0.8, "top_p": 0.9, "seed": 3},
    ],
    ids=str,
)
def test_answers_positions_and_scores_are_those_of_generate(model: adafv.Model, settings: dict[str, Any]) -> None:
    """Two questions share the prefill of each image, and prompts differ in length."""
    network = model._checkpoint.model
    plain, before = heard(model, Generating(network), **settings)
    steps, after = heard(model, stepped(network), **settings)
    assert [(one.text, one.tokens) for one in steps] == [(one.text, one.tokens) for one in plain]
    assert len(after.positions) == len(before.positions) > 5
    for one, other in zip(before.positions[-5:], after.positions[-5:], strict=True):
        assert torch.equal(other, one)
    for one, other in zip(before.logits, after.logits, strict=True):
        assert (one - other).abs().max() < 2e-5


def test_what_is_compared_is_compiled_before(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler would be in the times: each shape that is measured was there when both runs warmed up."""
    network, shapes = llava._checkpoint.model, []

    def spy(**inputs: Any) -> Any:
        shapes.append(tuple(inputs["attention_mask"].shape))
        return network(**inputs)

    monkeypatch.setattr(llava.pipeline, "decoder", stepped(network, spy))
    answer = llava.ask(noise(60, 60), TEXTS[0], keep=2, max_new_tokens=70, compare=True)
    assert answer.compare is not None and answer.tokens is not None and answer.tokens.generated > 2
    half = len(shapes) // 2
    assert half and set(shapes[half:]) <= set(shapes[:half])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no such kernel")], ids=repr
)
def test_both_are_compared_without_where_one_cannot_be_compiled(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A picture with all its tokens may not fit into a cache of fixed size, and the pruned one may."""
    network = llava._checkpoint.model
    plain = llava.ask(noise(60, 60), TEXTS[0], keep=2, max_new_tokens=9, compare=True)
    runs: list[tuple[int, bool]] = []

    def full(**inputs: Any) -> Any:
        if inputs["attention_mask"].shape[-1] > 64:
            raise error
        return network(**inputs)

    def noted(model: Any, spliced: Any, run: RunSettings, watch: Stopwatch, *, steps: Any = None, **how: Any) -> Any:
        runs.append((run.max_new_tokens, steps is not None))
        return generate(model, spliced, run, watch, steps=steps, **how)

    monkeypatch.setattr(generating, "generate", noted)
    monkeypatch.setattr(llava.pipeline, "decoder", stepped(network, full))
    assert plain.tokens is not None
    most = plain.tokens.fed + 9  # places that the pruned prompt and its answer take
    monkeypatch.setattr(stepping, "_places", lambda wanted: 64 if wanted <= most else 128)
    answer = llava.ask(noise(60, 60), TEXTS[0], keep=2, max_new_tokens=9, compare=True)
    assert (9, True) in runs
    assert runs[-4:] == [(1, False)] * 2 + [(9, False)] * 2
    assert answer.compare is not None and plain.compare is not None
    assert (answer.text, answer.compare.text) == (plain.text, plain.compare.text)


@pytest.fixture(scope="module")
def chatty(llava: adafv.Model) -> torch.nn.Module:
    return chatter.chatty(llava._checkpoint.model)


@torch.inference_mode()
@pytest.mark.parametrize("look", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_rows_that_end_early_change_no_token(
    chatty: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, temperature: float, look: int
) -> None:
    """Rows leave at their end token, or for want of room, and are asked about after several steps, as on a GPU."""
    run, shapes = RunSettings(max_new_tokens=90, temperature=temperature), []
    rooms = [90, 4, 90, 1, 90, 50, 2, 90, 80, 90, 66]
    asked = [Spliced(**vars(one) | {"room": room}) for one, room in zip(prompts(11, 2), rooms, strict=True)]

    def spy(**inputs: Any) -> Any:
        shapes.append(tuple(inputs["attention_mask"].shape))
        assert inputs["past_key_values"].layers[0].keys.shape[2] == shapes[-1][-1]
        return chatty(**inputs)

    steps = Steps(chatty, spy)
    monkeypatch.setattr(steps, "_look", look)
    alone = [generate(chatty, [prompt], run, Stopwatch())[0] for prompt in asked]
    together = generate(chatty, asked, run, Stopwatch(), steps=steps)
    assert [(one.ids, one.stopped) for one in together] == [(one.ids, one.stopped) for one in alone]
    lengths = sorted(len(one.ids) for one in alone)
    assert lengths[0] == 1 and lengths[-1] > 60
    assert shapes[0] == (8 if lengths[3] == 1 else 16, 1, 1, 96)
    assert [rows for rows, *_ in shapes] == sorted((rows for rows, *_ in shapes), reverse=True)
    assert {rows for rows, *_ in shapes} <= {2, 4, 8, 16} and shapes[-1][0] < shapes[0][0]
    assert len(set(shapes)) <= 4 and {places for *_, places in shapes} <= {64, 96, 128}
    assert temperature or shapes[-1] == (4, 1, 1, 128)  # longer than there was room for at first


@torch.inference_mode()
def test_caches_are_used_again(chatty: torch.nn.Module) -> None:
    """A graph reads and writes where it did when it was recorded: another cache would have to be recorded anew."""
    where: list[int] = []

    def spy(**inputs: Any) -> Any:
        where.append(inputs["past_key_values"].layers[0].keys.data_ptr())
        return chatty(**inputs)

    steps, run = Steps(chatty, spy), RunSettings(max_new_tokens=3)
    for seed in range(3):
        asked = prompts(4, seed)
        fresh = generate(chatty, asked, run, Stopwatch())
        assert [one.ids for one in generate(chatty, asked, run, Stopwatch(), steps=steps)] == [one.ids for one in fresh]
    assert len(where) > 3 and len(set(where)) == 1
    steps.let_go()
    assert not steps._caches


@torch.inference_mode()
def test_a_traced_step_is_one_graph_for_all_lengths(chatty: torch.nn.Module) -> None:
    """Nothing in a step falls back to Python, and shapes that change are not traced anew for ever."""
    torch._dynamo.reset()
    counters.clear()
    decoder = stepped(chatty, torch.compile(chatty.__call__, backend="eager"))
    run = RunSettings(max_new_tokens=5)
    for count, longer in ((4, 0), (8, 150), (2, 20)):
        asked = [
            Spliced(torch.cat([torch.zeros(longer, 48), one.embeddings]), torch.arange(longer + len(one.positions)))
            for one in prompts(count, 5)
        ]
        answered = [one.result().ids for one in decoder(asked, run, Stopwatch())]
        assert answered == [one.ids for one in generate(chatty, asked, run, Stopwatch())]
    assert decoder.compiles and not decoder.plain
    assert not counters["graph_break"] and 1 <= counters["stats"]["unique_graphs"] <= 4


@torch.inference_mode()
def test_what_cannot_be_compiled_is_decoded_as_ever_and_why_is_said(
    chatty: torch.nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def broken(**_: Any) -> Any:
        calls.append(1)
        raise AssertionError("no C++ compiler\nand more")

    decoder, asked = stepped(chatty, broken), prompts(5, 0)
    with caplog.at_level(logging.WARNING, logger="adafv"):
        for _ in range(2):
            answered = [one.result().ids for one in decoder(asked, RunSettings(max_new_tokens=9), Stopwatch())]
            assert answered == [one.ids for one in generate(chatty, asked, RunSettings(max_new_tokens=9), Stopwatch())]
    assert len(calls) == 1 and not decoder.compiles
    assert decoder.plain == "AssertionError: no C++ compiler"
    assert "not compiled any more" in caplog.text


@torch.inference_mode()
def test_want_of_memory_is_no_fault_of_the_compilers(chatty: torch.nn.Module) -> None:
    def full(**_: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    decoder = stepped(chatty, full)
    with pytest.raises(RuntimeError, match="out of memory"):
        decoder(prompts(5, 0), RunSettings(max_new_tokens=9), Stopwatch())
    assert decoder.compiles and decoder._steps is not None and not decoder._steps._caches


@torch.inference_mode()
@pytest.mark.parametrize("fits", [True, False])
def test_a_lone_question_that_is_too_large_for_compiled_steps_is_tried_once_without(
    chatty: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    (asked,), run = prompts(1, 0), RunSettings(max_new_tokens=9)
    wanted = generate(chatty, [asked], run, Stopwatch())[0].ids
    held: list[weakref.ref[torch.Tensor]] = []
    tried: list[bool] = []

    def full(**inputs: Any) -> Any:
        taken = torch.ones(1)
        held.append(weakref.ref(taken))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def counting(*args: Any, steps: Steps | None = None, **how: Any) -> Any:
        tried.append(steps is not None)
        if steps is None:
            assert [tensor() for tensor in held] == [None] and decoder._steps is not None
            assert not decoder._steps._caches  # all that was taken is free again
        if steps is None and not fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return generate(*args, steps=steps, **how)

    monkeypatch.setattr(generating, "generate", counting)
    decoder = stepped(chatty, full)
    if fits:
        assert decoder([asked], run, Stopwatch())[0].result().ids == wanted
    else:
        with pytest.raises(torch.OutOfMemoryError, match="1 GiB"):
            decoder([asked], run, Stopwatch())
    assert tried == [True, False] and decoder.unfit == 1
    assert decoder.compiles and not decoder.plain  # the next question is tried compiled again


def test_a_batch_too_large_for_compiled_steps_is_halved_before_that(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions that fit one by one are all decoded in compiled steps."""
    sizes, network = [], llava._checkpoint.model
    plain = list(llava.batch(questions(), batch_size=4, keep=5, max_new_tokens=6))

    def small(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return network(**inputs)

    decoder = stepped(network, small)
    monkeypatch.setattr(llava.pipeline, "decoder", decoder)
    answers = list(llava.batch(questions(), batch_size=4, keep=5, max_new_tokens=6))
    assert [answer.text for answer in answers] == [answer.text for answer in plain]
    assert sizes[0] > 1 and 1 in sizes and decoder.unfit == 0


def test_models_that_are_not_decoded_so(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    network = llava._checkpoint.model
    assert not stepping.refusal(network)
    monkeypatch.setattr(network, "hf_quantizer", SimpleNamespace(is_compileable=False), raising=False)
    assert "quantized" in stepping.refusal(network)
    assert Generating(network, compile=True).plain == stepping.refusal(network)
    network.hf_quantizer.is_compileable = True
    monkeypatch.setattr(network.config.get_text_config(), "_attn_implementation_internal", "flash_attention_2")
    assert "flash_attention_2" in stepping.refusal(network)
    text = MistralConfig(**tiny.text_config(320).to_diff_dict() | {"model_type": "mistral", "sliding_window": 7})
    with torch.device("meta"):
        sliding = LlavaForConditionalGeneration(LlavaConfig(vision_config=tiny.vision_config(), text_config=text))
    assert "meta" in stepping.refusal(sliding)
    sliding.to_empty(device="cpu")
    assert "sliding" in stepping.refusal(sliding)


def test_a_loaded_model_says_what_compiling_came_to(llava_folder: Path) -> None:
    plain = adafv.load(str(llava_folder), dtype="float32")
    assert "compile" not in plain.describe() and not plain.notes
    asked = adafv.load(str(llava_folder), dtype="float32", compile=True)
    assert asked.describe()["compile"] is True and not asked.notes
    eager = adafv.load(str(llava_folder), dtype="float32", compile=True, attention="eager")
    assert eager.describe()["compile"] is False
    assert eager.notes == ("decoding is not compiled: eager attention has no masks of fixed size here",)
    with pytest.raises(InputError, match="compile: True is of the language model, which the server has"):
        LoadSettings(compile=True, server="http://127.0.0.1:1")


@pytest.mark.parametrize("command", ["ask", "batch"])
def test_the_command_line_says_when_it_stopped_compiling(
    llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(stepping, "_compiled", lambda *_: broken)
    noise(60, 60).save(tmp_path / "a.png")
    (tmp_path / "q.jsonl").write_text('{"image": "a.png", "text": "what?"}\n')
    asked = (tmp_path / "a.png", "what?") if command == "ask" else (tmp_path / "q.jsonl",)
    args = (command, *map(str, asked), "-m", str(llava_folder), "--max-new-tokens", "3", "--device-map", "cpu")
    plain, compiled = adafv_command(*args), adafv_command(*args, "--compile")
    assert (plain.code, compiled.code) == (0, 0)
    assert compiled.stderr.count("note: decoding is not compiled: RuntimeError: no C++ compiler") == 1
    assert "compiled" not in plain.stderr
    texts = [out.stdout if command == "ask" else json.loads(out.stdout)["text"] for out in (plain, compiled)]
    assert texts[0] == texts[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [{"keep": "all"}, {"keep": 5, "temperature": 0.8, "top_p": 0.9}], ids=str)
def test_graphs_of_a_gpu_change_no_answer(llava_folder: Path, settings: dict[str, Any]) -> None:
    plain, compiled = (
        adafv.load(str(llava_folder), dtype="float32", device_map="cuda:0", compile=compile)
        for compile in (False, True)
    )
    for _ in range(3):  # compiled, recorded, replayed
        before, after = (list(one.batch(questions(), batch_size=4, **settings)) for one in (plain, compiled))
        assert [one.error for one in after] == [None] * 4
        assert [(one.text, one.tokens) for one in after] == [(one.text, one.tokens) for one in before]
    assert compiled.describe()["compile"] is True, compiled.notes
