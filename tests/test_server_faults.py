"""Servers that are not there, not ours, too old, busy, dead, or poisoned: what it was, and nobody else is hurt."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv import Answer, BatchSettings, Question, RunSettings
from adafv.errors import AdaFVError, DeviceError, ServerError
from adafv.serving import fleet
from tests import tiny
from tests.completions import Completions
from tests.conftest import noise

RUN = RunSettings(keep="25%", max_new_tokens=3)
SMALL = BatchSettings(batch_size=4)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "PATIENCE_S", 0.4)
    monkeypatch.setattr(fleet, "BACKOFF_S", 0.01)
    monkeypatch.delenv("ADAFV_SERVER_KEY", raising=False)


@pytest.fixture
def start(llava: adafv.Model) -> Iterator[Callable[..., Completions]]:
    found = []

    def starting(*args: Any, **more: Any) -> Completions:
        found.append(Completions(llava._checkpoint.model, *args, **more))
        return found[-1]

    yield starting
    for one in found:
        one.die()


@pytest.fixture
def load(llava_folder: Path) -> Callable[..., adafv.Model]:
    def loading(*servers: Completions, **more: Any) -> adafv.Model:
        urls = ",".join(server.url for server in servers)
        return adafv.load(str(llava_folder), **{"dtype": "float32", "server": urls, **more})

    return loading


def asked(count: int = 12) -> list[Question]:
    return [Question(i, noise(60, 60, seed=i % 3), "what?" if i != 5 else "what is it? " * 9) for i in range(count)]


def marked(length: int) -> Callable[[torch.Tensor], bool]:
    """Whether a prompt is that of question 5."""
    return lambda prompt: len(prompt) > length


POISON = marked(40)


def types(answers: list[Answer]) -> list[str | None]:
    return [answer.error and answer.error.type for answer in answers]


def refused(call: Callable[[], object], *words: str) -> AdaFVError:
    with pytest.raises(DeviceError) as raised:
        call()
    assert all(word in str(raised.value) for word in words), str(raised.value)
    return raised.value


def test_a_server_that_is_not_there_is_named_with_the_line_that_starts_it(llava_folder: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        line = f"vllm serve {llava_folder} --language-model-only --enable-prompt-embeds --dtype float32 --port"
        refused(lambda: adafv.load(str(llava_folder), dtype="float32", server=url), "refused", line)


def test_what_is_no_server_of_completions_is_refused(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    monkeypatch.setattr("adafv.serving.server.MODELS", "/v2/models")
    refused(lambda: load(server), "no server of completions", "vllm serve")


@pytest.mark.parametrize(
    "how,words",
    [
        ({"embeds": False}, ("refuses prompt embeddings", "--enable-prompt-embeds")),
        ({"key": "secret"}, ("wants another key", "ADAFV_SERVER_KEY")),
    ],
)
def test_a_server_that_will_not_is_refused_with_the_reason(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], how: Any, words: tuple[str, ...]
) -> None:
    server = start(**how)
    refused(lambda: load(server), *words)


def test_a_key_from_the_environment_opens(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAFV_SERVER_KEY", "secret")
    assert types(list(load(start(key="secret")).stream(asked(2), RUN))) == [None, None]


def test_another_model_of_the_same_width_is_found_out(
    load: Callable[..., adafv.Model], tmp_path: Path, start: Callable[..., Completions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adafv.serving.server.FRESH_S", 0)  # it is greeted again after any silence
    other = adafv.load(str(tiny.save_llava(tmp_path, seed=7)), dtype="float32")._checkpoint.model
    server = start()
    model = load(server)
    server.model = other  # it was started again, with something else
    refused(lambda: load(server), "not our language model", "vllm serve")
    server.die()
    server.start()
    refused(lambda: list(model.stream(asked(2), RUN)), "not our language model", "--resume")


def test_a_server_that_gives_no_ids_is_too_old(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    monkeypatch.setattr(server, "complete", lambda asked: (200, {"choices": [{"text": "red"}]}))
    refused(lambda: load(server), "too old", "vllm serve")


def test_what_a_server_refuses_is_that_lines_error(
    start: Callable[..., Completions], load: Callable[..., adafv.Model]
) -> None:
    server = start(lambda prompt: "400" if POISON(prompt) else None)
    answers = list(load(server).stream(asked(), RUN, SMALL))
    assert types(answers) == [None] * 5 + ["InputError"] + [None] * 6
    assert answers[5].error and "400: told to say 400" in answers[5].error.message


@pytest.mark.parametrize("said", ["401", "403", "404", "dumb"])
def test_what_a_well_server_says_twice_to_one_question_is_that_lines_error(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], said: str
) -> None:
    server = start(lambda prompt: said if POISON(prompt) else None)
    answers = list(load(server).stream(asked(), RUN, SMALL))
    assert types(answers) == [None] * 5 + ["InputError"] + [None] * 6
    assert answers[5].error and "the server will not answer it" in answers[5].error.message
    assert len(server.asked) == 13  # it is asked twice, the others once


def test_a_prompt_longer_than_the_servers_context_is_not_sent(
    start: Callable[..., Completions], load: Callable[..., adafv.Model]
) -> None:
    server = start(limit=41)
    answers = list(load(server).stream(asked(), replace(RUN, max_new_tokens=40), SMALL))
    assert types(answers) == [None] * 5 + ["InputError"] + [None] * 6
    assert answers[5].error and "the server has 41" in answers[5].error.message
    assert len(server.asked) == 11 and {one["max_tokens"] for one in server.asked} == {41 - 13}


def test_a_prompt_that_is_not_finite_is_not_sent(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    model = load(server)
    stages = model.pipeline.stages
    embed = stages.embed

    def spoilt(ids: list[int]) -> torch.Tensor:
        found = embed(ids).clone()
        if len(ids) > 40:
            found[0, 0] = torch.nan
        return found

    monkeypatch.setattr(stages, "embed", spoilt)
    answers = list(model.stream(asked(), replace(RUN, pruner="uniform"), SMALL))
    assert types(answers) == [None] * 5 + ["InputError"] + [None] * 6
    assert answers[5].error and "not finite" in answers[5].error.message and len(server.asked) == 11


@pytest.mark.parametrize("status", ["500", "503", "cut", "hang"])
def test_one_failure_is_tried_again(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], status: str
) -> None:
    failed: list[int] = []

    def once(prompt: torch.Tensor) -> str | None:
        failed.append(len(prompt))
        return status if len(failed) == 3 else None

    server = start(once)
    answers = list(load(server, server_timeout=0.3).stream(asked(), RUN, SMALL))
    assert types(answers) == [None] * 12
    assert (len(failed) >= 13 and server.greeted > 2) or status == "503"


def test_a_server_that_fails_at_everything_ends_the_run_and_blames_few_lines(
    start: Callable[..., Completions], load: Callable[..., adafv.Model]
) -> None:
    stream = load(start(lambda prompt: "500")).sweep(asked(), [RUN], SMALL)
    answers: list[list[Answer]] = []
    with pytest.raises(ServerError, match="told to say 500"):
        answers.extend(stream)
    assert len(answers) <= 2 and stream.suspects


def test_the_other_server_takes_over(start: Callable[..., Completions], load: Callable[..., adafv.Model]) -> None:
    lives, dies = start(), start()
    dies.fault = lambda prompt: "die" if len(dies.asked) == 2 else None
    assert types(list(load(lives, dies, server_requests=4).stream(asked(30), RUN, SMALL))) == [None] * 30
    assert not dies.alive and len(lives.asked) >= 25


def test_poison_is_found_alone_and_the_others_are_answered(
    start: Callable[..., Completions], load: Callable[..., adafv.Model]
) -> None:
    deaths: list[int] = []

    def poison(prompt: torch.Tensor) -> str | None:
        if not POISON(prompt):
            return None
        deaths.append(len(server.asked))
        return "die"

    server = start(poison, revives=True)
    answers = list(load(server).stream(asked(30), RUN, SMALL))
    assert types(answers) == [None] * 5 + ["PoisonError"] + [None] * 24
    assert len(deaths) == 2


def test_a_server_that_stays_away_ends_the_run_with_what_it_had(
    start: Callable[..., Completions], load: Callable[..., adafv.Model]
) -> None:
    server = start(lambda prompt: "die" if POISON(prompt) else None)
    stream = load(server, server_requests=3).sweep(asked(30), [RUN], SMALL)
    answers: list[list[Answer]] = []
    with pytest.raises(ServerError, match="refused") as raised:
        answers.extend(stream)
    assert "--resume" in raised.value.fix
    assert [one.question_id for (one,) in answers] == list(range(len(answers))) and len(answers) <= 5
    assert 5 in {one.question.question_id for one in stream.suspects}
    assert len(stream.suspects) <= 3 and {one.strikes for one in stream.suspects} == {1}


def test_stop_waits_for_what_is_in_flight(start: Callable[..., Completions], load: Callable[..., adafv.Model]) -> None:
    server, stop = start(), threading.Event()

    def stopping() -> Iterator[Question]:
        for question in asked(100):
            if question.question_id == 40:
                stop.set()
            yield question

    answers = list(load(server).stream(stopping(), RUN, SMALL, stop))
    assert [one.question_id for one in answers] == list(range(len(answers)))
    assert types(answers) == [None] * len(answers) and server.in_flight == 0


@pytest.mark.parametrize(
    "settings,word",
    [({"positions": "original"}, "positions"), ({"compare": True}, "compare")],
)
def test_what_a_server_cannot_is_refused(
    start: Callable[..., Completions], load: Callable[..., adafv.Model], settings: Any, word: str
) -> None:
    model = load(start())
    with pytest.raises(AdaFVError, match=word):
        model.ask(noise(60, 60), "what?", **settings)
    with pytest.raises(AdaFVError, match=word):
        model.batch(asked(), **settings)
    with pytest.raises(AdaFVError, match=word):
        model.sweep(
            asked(), [RunSettings(pruner="none", keep="all", compare="compare" in settings), RunSettings(**settings)]
        )


@pytest.mark.parametrize("settings,word", [({"quantize": "int8"}, "quantize"), ({"attention": "eager"}, "attention")])
def test_settings_of_the_servers_own_are_refused(settings: Any, word: str) -> None:
    with pytest.raises(AdaFVError, match=word):
        adafv.LoadSettings(server="http://127.0.0.1:1", **settings)


def test_a_family_that_servers_do_not_know_is_refused(tmp_path: Path, start: Callable[..., Completions]) -> None:
    folder = tiny.save("vipllava", tmp_path, vision_feature_layer=[-2, 0])
    with pytest.raises(AdaFVError, match="ViP-LLaVA, which vLLM does not serve"):
        adafv.load(str(folder), server=start().url)
