"""With a server the answers are those of our own engine, and what goes over the wire is what has to."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv import Answer, BatchSettings, Question, RunSettings
from adafv.streaming.runs import grid
from tests import tiny
from tests.cli_fakes import adafv as run_adafv
from tests.completions import Completions
from tests.conftest import noise

RUN = RunSettings(keep="25%", max_new_tokens=6)


@pytest.fixture(scope="module")
def server(llava: adafv.Model) -> Iterator[Completions]:
    found = Completions(llava._checkpoint.model)
    yield found
    found.die()


@pytest.fixture(scope="module")
def served(llava_folder: Path, server: Completions) -> adafv.Model:
    return adafv.load(str(llava_folder), dtype="float32", server=server.url)


def asked(count: int = 16, images: int = 4) -> list[Question]:
    words = "what color is the sign in the picture that is behind the big blue house".split()
    keeps = ["25%", None, 7, "all"]
    return [
        Question(i, noise(60 + 30 * (i % images), 60, seed=i % images), " ".join(words[: 1 + i % 9]), keep=keeps[i % 4])
        for i in range(count)
    ]


def alike(answer: Answer) -> Answer:
    """Without times, and without what is charged to whichever question about an image comes first."""
    return replace(answer, latency_s=None, memory_bytes=None, flops=None, model_id="")


def spent(answers: list[Answer]) -> int:
    return sum(answer.flops.total for answer in answers if answer.flops is not None)


@pytest.mark.parametrize("batch", [BatchSettings(batch_size=3), BatchSettings()])
def test_a_server_gives_our_own_answers_under_mixed_budgets(
    llava: adafv.Model, served: adafv.Model, batch: BatchSettings
) -> None:
    wanted, found = (list(model.stream(asked(), RUN, batch)) for model in (llava, served))
    assert list(map(alike, found)) == list(map(alike, wanted)) and spent(found) == spent(wanted)
    assert all(answer.error is None for answer in wanted) and len({answer.text for answer in wanted}) > 1


def test_tiles_of_mixed_sizes_and_a_sweep(tiled: adafv.Model, tmp_path: Path) -> None:
    runs = grid(RUN, ["adafv", "uniform"], ["25%", "9"])
    server = Completions(tiled._checkpoint.model)
    folder = tiny.save_llava_next(tmp_path)
    served = adafv.load(str(folder), dtype="float32", device_map="cpu", server=server.url)
    found, wanted = ([list(map(alike, row)) for row in model.sweep(asked(8), runs)] for model in (served, tiled))
    server.die()
    assert found == wanted and len(found[0]) == 5
    assert len({one.tokens.visual for row in found for one in row if one.tokens}) > 1


def test_times_that_a_server_cannot_tell_are_null(served: adafv.Model) -> None:
    (answer,) = served.batch(asked(1), RUN)
    times = answer.to_json()["latency_s"]
    assert [times[name] for name in ("prefill", "ttft", "decode", "tpot")] == [None] * 4
    parts = sum(times[name] for name in ("preprocess", "vision", "score", "prune", "server"))
    assert times["server"] > 0 and times["total"] == pytest.approx(parts, abs=1e-5)
    assert answer.memory_bytes is not None and answer.memory_bytes.peak is None


def test_only_what_makes_prompts_is_loaded(served: adafv.Model, llava: adafv.Model) -> None:
    names = {name for name, _ in served.pipeline.model.named_parameters()}
    assert not [name for name in names if (".layers." in name and "language_model" in name) or "lm_head" in name]
    front = ("model.vision_tower.", "model.multi_modal_projector.", "model.language_model.embed_tokens.")
    assert {name for name, _ in llava.pipeline.model.named_parameters() if name.startswith(front)} <= names
    assert served.pipeline.model.config.text_config.num_hidden_layers == 2  # what answers cost


def test_every_field_is_sent_and_no_more_than_the_prompt(served: adafv.Model, server: Completions) -> None:
    server.asked.clear()
    run = replace(RUN, temperature=0.7, top_p=0.9, seed=3)
    (answer,) = served.stream(asked(1), run)
    (sent,) = server.asked
    assert answer.tokens is not None
    raw = base64.b64decode(sent.pop("prompt_embeds"))
    prompt = torch.load(io.BytesIO(raw), weights_only=True)
    assert prompt.shape == (answer.tokens.fed, 48) and prompt.dtype == torch.float32
    assert len(raw) < prompt.numel() * 4 + 2_000  # a view would bring all that is behind it
    assert sent == {
        "model": "served", "max_tokens": 6, "temperature": 0.7, "top_p": 0.9, "top_k": 0, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "n": 1, "min_tokens": 0,
        "stop": [], "stop_token_ids": [1], "ignore_eos": False, "add_special_tokens": False, "stream": False,
        "echo": False, "return_token_ids": True, "seed": sent["seed"],
    }  # fmt: skip
    list(served.stream([*asked(2)][1:], run))
    assert server.asked[1]["seed"] != sent["seed"]


def until(met: Callable[[], bool]) -> bool:
    """Whether it comes to that."""
    for _ in range(1_000):
        if met():
            return True
        time.sleep(0.01)
    return False


def test_requests_stay_in_flight_across_batches(llava_folder: Path, server: Completions) -> None:
    model = adafv.load(str(llava_folder), dtype="float32", server=server.url, server_requests=11)
    server.most = 0
    server.gate.clear()
    stream = model.stream(asked(40), RUN, BatchSettings(batch_size=4))
    answers: list[Any] = []
    taking = threading.Thread(target=lambda: answers.extend(stream), daemon=True)
    taking.start()
    assert until(lambda: server.in_flight == 11)  # three batches, none of them answered
    server.gate.set()
    taking.join(30)
    assert [answer.question_id for answer in answers] == list(range(40))
    assert server.most == 11


def test_an_image_is_charged_to_the_first_question_that_is_answered(llava_folder: Path, server: Completions) -> None:
    answered = threading.Event()

    def one_by_one() -> Iterator[Question]:
        for number in range(3):
            yield Question(number, noise(60, 60), "what?")
            answered.wait(5)

    said = iter(["400", None, None])
    server.fault = lambda prompt: next(said)
    stream = adafv.load(str(llava_folder), dtype="float32", server=server.url).stream(one_by_one(), RUN)
    answers = [next(stream)]
    answered.set()
    answers += stream
    server.fault = None
    assert [answer.error is None for answer in answers] == [False, True, True]
    assert sum(answer.flops.vision > 0 for answer in answers if answer.flops) == 1


def test_the_command_gives_the_same_lines(llava_folder: Path, server: Completions, tmp_path: Path) -> None:
    for i in range(3):
        noise(60, 60, seed=i).save(tmp_path / f"{i}.png")
    lines = [{"image": f"{i % 3}.png", "text": f"what is {i}?"} for i in range(9)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = ("batch", str(path), "-m", str(llava_folder), "--dtype", "float32", "--max-new-tokens", "5", "-q")
    results = [run_adafv(*common, *more) for more in ((), ("--server", server.url))]
    assert [result.code for result in results] == [0, 0], results[1].stderr
    rows = [[json.loads(line) for line in result.stdout.splitlines()] for result in results]
    for row in rows[0] + rows[1]:
        del row["latency_s"], row["flops"]
    assert rows[0] == rows[1] and len(rows[0]) == 9


def test_ask_says_what_the_server_took(llava_folder: Path, server: Completions, tmp_path: Path) -> None:
    noise(60, 60).save(tmp_path / "a.png")
    flags = ("-m", str(llava_folder), "--server", server.url, "--max-new-tokens", "3")
    result = run_adafv("ask", str(tmp_path / "a.png"), "what?", *flags)
    assert result.code == 0 and "  server\n" in result.stderr
    assert "TTFT" not in result.stderr and "prefill" not in result.stderr
    several = run_adafv("ask", str(tmp_path / "a.png"), "what?", "who?", *flags)
    assert several.code == 0 and len(several.stdout.splitlines()) == 2
