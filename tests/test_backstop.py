"""Whatever one line raises is that line's error, and the others are answered; only a lost device ends a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adafv
from adafv import Answer, BatchSettings, Question
from adafv.errors import CheckpointError, DeviceError
from adafv.pipeline import Pipeline
from adafv.streaming import prefetching
from adafv.streaming.runs import grid
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import adafv as command
from tests.conftest import noise
from tests.poison_lines import Poisoner, check
from tests.test_streaming import RUN

LOST = "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"


def raising(error: BaseException, text: str = "poison") -> Callable[..., Any]:
    """`Pipeline.begin` that fails for a batch with a request that asks `text`."""
    run = Pipeline.begin

    def picky(self: Pipeline, requests: list[Any], *others: Any) -> Any:
        if any(request.question.text == text for request in requests):
            raise error
        return run(self, requests, *others)

    return picky


def asked(count: int = 6, poison: int = 2) -> list[Question]:
    return [Question(i, noise(60, 60, seed=i % 2), "poison" if i == poison else "what?") for i in range(count)]


def types(found: list[Answer]) -> list[str | None]:
    return [answer.error and answer.error.type for answer in found]


@pytest.mark.parametrize(
    "error",
    [RecursionError("maximum recursion depth exceeded"), IndexError("index out of range in self"), KeyError("x"),
     RuntimeError("shapes do not fit"), AssertionError(), ZeroDivisionError("by zero")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_a_line_raises_is_its_error(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(Pipeline, "begin", raising(error))
    with caplog.at_level(logging.WARNING, "adafv"):
        found = list(llava.batch(asked(), RUN, batch_size=4))
    assert types(found) == [None, None, "InternalError", None, None, None]
    failure = found[2].error
    assert failure is not None and failure.message.startswith(f"unexpected {type(error).__name__}: ")
    assert "question_id 2: " in caplog.text and "Traceback (most recent call last)" in caplog.text
    assert caplog.text.count("Traceback") == 1
    charged = [a.question_id for a in found if a.flops is not None and a.flops.vision]
    assert charged == [0, 1]


def test_a_line_that_fails_is_charged_nothing(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "begin", raising(IndexError()))
    found = list(llava.batch(asked(poison=0), RUN, batch_size=4))
    assert [a.question_id for a in found if a.flops is not None and a.flops.vision] == [1, 2]


def test_a_defect_under_each_setting(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "begin", raising(IndexError()))
    rows = list(llava.sweep(asked(), grid(RUN, ["adafv"], ["25%"]), BatchSettings(batch_size=4)))
    assert [types(row) for row in rows] == [[None] * 2] * 2 + [["InternalError"] * 2] + [[None] * 2] * 3


def test_an_error_of_ours_keeps_its_name(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that escapes what is between < and > loses such a question, and no other."""
    monkeypatch.setattr(Pipeline, "begin", raising(CheckpointError("the template lost the question", "fetch it")))
    assert types(list(llava.batch(asked(), RUN))) == [None, None, "CheckpointError", None, None, None]
    render = adafv.Model.render

    def losing(self: adafv.Model, question: Question, *others: Any) -> Any:
        if question.text == "3 < 5":
            raise CheckpointError("the chat template lost the question '3 < 5'", "fetch it")
        return render(self, question, *others)

    monkeypatch.setattr(adafv.Model, "render", losing)
    found = list(llava.batch([Question(0, noise(60, 60), "3 < 5"), Question(1, noise(60, 60), "what?")], RUN))
    assert types(found) == ["CheckpointError", None]


def test_preparing_a_line_is_covered_too(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    images = {side: noise(side, 60) for side in (60, 70, 80)}
    content_key, preprocess, render = prefetching.content_key, Pipeline.preprocess, adafv.Model.render

    def keyless(source: Any) -> str:
        if source is images[80]:
            raise OverflowError("key")
        return content_key(source)

    def wordless(self: adafv.Model, question: Question, *others: Any) -> Any:
        if question.text == "poison":
            raise RecursionError("render")
        return render(self, question, *others)

    def blind(self: Pipeline, image: Any, *others: Any) -> Any:
        if image.width == 70:
            raise AttributeError("preprocess")
        return preprocess(self, image, *others)

    monkeypatch.setattr(prefetching, "content_key", keyless)
    monkeypatch.setattr(adafv.Model, "render", wordless)
    monkeypatch.setattr(Pipeline, "preprocess", blind)
    lines = [(60, "what?"), (60, "poison"), (70, "what?"), (70, "who?"), (80, "what?"), (60, "who?")]
    found = list(llava.batch([Question(i, images[side], text) for i, (side, text) in enumerate(lines)], RUN))
    assert types(found) == [None, *["InternalError"] * 4, None]
    said = [answer.error.message for answer in found if answer.error]
    assert said == [f"unexpected {kind}" for kind in (
        "RecursionError: render", "AttributeError: preprocess", "AttributeError: preprocess", "OverflowError: key"
    )]  # fmt: skip


def test_a_lost_device_ends_the_stream(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "begin", raising(RuntimeError(LOST)))
    stream = llava.batch(asked(), RUN, batch_size=1)
    assert [next(stream).question_id for _ in range(2)] == [0, 1]
    with pytest.raises(DeviceError, match="the device failed: CUDA error: device-side assert triggered"):
        next(stream)


def test_a_device_that_still_computes_is_not_lost(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "begin", raising(RuntimeError("CUDA error: invalid configuration argument")))
    monkeypatch.setattr(Pipeline, "computes", lambda _: True)
    assert types(list(llava.batch(asked(), RUN))) == [None, None, "InternalError", None, None, None]


@pytest.fixture
def folder(llava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("ADAFV_MODEL", "ADAFV_KEEP", "ADAFV_DEVICE_MAP"):
        monkeypatch.delenv(name, raising=False)
    return str(llava_folder)


def test_a_batch_says_that_it_met_a_defect(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [asking(1), asking(2) | {"text": "poison"}, asking(3, "gone.png"), asking(4)]
    path, out = questions(tmp_path, *lines), tmp_path / "answers.jsonl"
    args = ("batch", path, "-m", folder, "--max-new-tokens", "1", "-o", str(out))
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "begin", raising(IndexError("index out of range in self")))
        done = command(*args)
        assert done.code == 70
        assert "InternalError: unexpected IndexError: index out of range in self" in done.stderr
        assert "1 failure is a defect of adafv or of a library, not of the input\n  run with -vv" in done.stderr
        assert "Traceback" not in done.stderr
    found = answers(out.read_text())
    assert [answer["error"] and answer["error"]["type"] for answer in found] == [
        None, "InternalError", "ImageError", None,
    ]  # fmt: skip
    done = command(*args, "--resume")
    assert done.code == 1
    assert [answer["question_id"] for answer in answers(out.read_text())] == [1, 4, 2, 3]


def test_the_traceback_is_there_for_who_asks(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Pipeline, "begin", raising(IndexError("index out of range in self")))
    path = questions(tmp_path, asking(2) | {"text": "poison"}, asking(3))
    done = command("sweep", path, "-m", folder, "--keep", "25%", "--max-new-tokens", "1", "-vv")
    assert done.code == 70
    assert "in picky\n" in caplog.text and "question_id 2: unexpected IndexError" in caplog.text


def test_a_lost_device_is_exit_3(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "begin", raising(RuntimeError(LOST)))
    path, out = questions(tmp_path, asking(1), asking(2) | {"text": "poison"}, asking(3)), tmp_path / "out.jsonl"
    done = command("batch", path, "-m", folder, "--max-new-tokens", "1", "--batch-size", "1", "-o", str(out))
    assert done.code == 3
    assert "adafv: the device failed: CUDA error: device-side assert triggered\n" in done.stderr
    assert "--resume" in done.stderr
    assert [answer["question_id"] for answer in answers(out.read_text())] == [1]


@pytest.mark.parametrize("key", ["kind", "question_id", "text", "image"])
def test_lines_nested_at_every_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Reading, answering, writing and reading again each take some of Python's stack."""
    install(monkeypatch, FakeBatchModel())
    lines: list[object] = []
    for depth in (1, 600, 690, *range(695, 705), *range(960, 1000, 2), 5_000):
        rest = {name: value for name, value in asking(depth).items() if name != key}
        lines.append(json.dumps(rest)[:-1] + f', "{key}": ' + "[" * depth + "]" * depth + "}")
    path, out = questions(tmp_path, *lines, asking(0)), tmp_path / "answers.jsonl"
    done = command("batch", path, "-o", str(out))
    assert done.code == 1, done.stderr
    again = command("batch", path, "-o", str(out), "--resume")
    assert again.code == 1, again.stderr
    found = answers(out.read_text())
    assert len(found) == len(lines) + 1
    good = {answer["question_id"] for answer in found if answer["error"] is None}
    assert good == ({0, 1, 600, 690, *range(695, 701)} if key == "kind" else {0})
    assert {answer["error"]["type"] for answer in found if answer["error"]} == {"InputError"}


def test_good_lines_are_answered_among_poisoned_ones(tmp_path: Path, folder: str) -> None:
    source, expected = Poisoner(tmp_path, seed=1).write(200)
    out = tmp_path / "answers.jsonl"
    args = ("batch", str(source), "-m", folder, "-o", str(out), "--max-new-tokens", "2", "--keep", "4")
    done = command(*args)
    found = check(out, expected)
    assert done.code == 1 and "InternalError" not in found, done.stderr
    assert found["answered"] > 100 and found["InputError"] > 25 and found["ImageError"] > 5
    done = command(*args, "--resume")
    assert done.code == 1, done.stderr
    with out.open("rb") as stream:
        ids = [json.dumps(json.loads(line)["question_id"]) for line in stream]
    assert len(ids) == len(set(ids)) == 200
