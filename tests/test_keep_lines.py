"""A question's own `keep` wins over the flag: in the library, in a batch, in a sweep, and when either goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import adafv
from adafv import BatchSettings, BudgetError, Question, RunSettings
from adafv.streaming.runs import grid
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import Result
from tests.cli_fakes import adafv as command
from tests.conftest import noise
from tests.spying import listening

KEEPS = (None, 3, "25%", "all", 16, "100", "12.5%", 5)  # of 16 tokens
BAD: list[object] = ["0%", "101%", "many", 0, -3, 2.5, True, [], {"share": 1}, "9" * 4000]


def mixed() -> list[Question]:
    words = "what color is the sign that is behind the house".split()
    return [Question(i, noise(60, 60, seed=i), " ".join(words[: 3 + i]), keep=keep) for i, keep in enumerate(KEEPS)]


@pytest.mark.parametrize("pruner", ["adafv", "divprune"])
def test_a_batch_of_mixed_budgets_is_one_batch_and_equals_its_questions(llava: adafv.Model, pruner: str) -> None:
    run = RunSettings(keep=7, pruner=pruner, max_new_tokens=4)
    with listening(llava) as heard:
        together = list(llava.batch(mixed(), run, batch_size=len(KEEPS)))
    assert len(heard.logits[0]) == len(KEEPS)  # rows of the one prefill
    assert [answer.tokens and answer.tokens.kept for answer in together] == [7, 3, 4, 16, 16, 16, 2, 5]
    assert [answer.keep for answer in together] == ["7", "3", "25%", "all", "16", "100", "12.5%", "5"]
    rows = []  # those of like length lie side by side
    for question, answer in zip(mixed(), together, strict=True):
        with listening(llava) as alone:
            one = llava.ask(question.image, question.text, run.keeping(question.keep))
        assert (one.text, one.keep, one.tokens, one.flops) == (answer.text, answer.keep, answer.tokens, answer.flops)
        rows += (heard.logits[0] - alone.logits[0][0]).abs().amax(dim=1).lt(5e-6).nonzero().flatten().tolist()
    assert sorted(rows) == list(range(len(KEEPS)))


def test_what_prunes_nothing_has_no_budget(llava: adafv.Model) -> None:
    (answer,) = llava.batch([Question(0, noise(60, 60), "what", keep=3)], pruner="none", keep="all", max_new_tokens=2)
    assert answer.tokens is not None
    assert (answer.tokens.kept, answer.keep) == (16, "all")


def test_a_sweep_answers_such_a_question_once_for_each_pruner(llava: adafv.Model) -> None:
    runs = grid(RunSettings(max_new_tokens=3), ["adafv", "saliency"], ["2", "50%"])
    asked = [Question(0, noise(60, 60), "what", keep=3), Question(1, noise(60, 60), "what color")]
    with listening(llava) as heard:
        own, others = llava.sweep(asked, runs, BatchSettings(batch_size=1))
    kept = [answer.tokens.kept for answer in (*own, *others) if answer.tokens is not None]
    assert kept == [16, 3, 3, 3, 3, 16, 2, 8, 2, 8]
    assert [answer.keep for answer in own] == ["all", "3", "3", "3", "3"]
    rows = sum(len(logits) for logits, length in zip(heard.logits, heard.lengths, strict=True) if length > 1)
    assert rows - len(runs) == 3 + 5  # each run's first batch is preceded by one that only warms up


def test_a_row_may_have_one_and_a_bad_one_fails_alone(llava: adafv.Model) -> None:
    rows: list[dict[str, Any]] = [{"image": noise(60, 60), "text": "what", "keep": keep} for keep in [*BAD, 3, None]]
    *refused, own, flag = llava.batch(rows, keep=5, max_new_tokens=2)
    for keep, answer in zip(BAD, refused, strict=True):
        assert answer.error is not None and answer.text is None
        assert (answer.error.type, len(answer.error.message) < 300) == ("BudgetError", True)
        assert str(keep)[:20] in answer.error.message and "128" in answer.error.fix
    assert [(answer.keep, answer.tokens and answer.tokens.kept) for answer in (own, flag)] == [("3", 3), ("5", 5)]
    assert own.metadata == {}
    with pytest.raises(BudgetError):
        Question(0, noise(60, 60), "what", keep="0%")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def line(number: int, keep: object) -> dict[str, object]:
    return asking(number) | {"keep": keep}


def again(path: str, out: Path, *flags: str, to: str = "batch") -> Result:
    return command(to, path, "-o", str(out), "--resume", *flags)


def kept(out: Path) -> dict[int, tuple[str, int]]:
    return {a["question_id"]: (a["keep"], a["tokens"]["kept"]) for a in answers(out.read_text()) if not a["error"]}


def test_lines_of_a_batch(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    good = [asking(1), line(2, 64), line(3, "50%"), line(4, "all"), line(5, None)]
    path = questions(tmp_path, *good, *(line(10 + number, keep) for number, keep in enumerate(BAD)))
    done = command("batch", path, "--keep", "25%", "-o", str(out))
    wanted = {1: ("25%", 144), 2: ("64", 64), 3: ("50%", 288), 4: ("all", 576), 5: ("25%", 144)}
    assert (done.code, kept(out)) == (1, wanted)
    failed = [answer["error"] for answer in answers(out.read_text()) if answer["error"]]
    assert [error["type"] for error in failed] == ["BudgetError"] * len(BAD)
    assert "keep: 0% is not between 0% and 100%" in failed[0]["message"]
    assert all(answer["metadata"] == {} for answer in answers(out.read_text()))
    model.asked.clear()
    done = again(questions(tmp_path, *good, line(10, "10%")), out, "--keep", "25%")  # what failed is redone alone
    assert (done.code, kept(out), len(model.asked)) == (0, wanted | {10: ("10%", 58)}, 1)


@pytest.mark.parametrize("settings_are_gone", [False, True])
def test_a_batch_does_not_go_on_under_another_budget(
    tmp_path: Path, model: FakeBatchModel, out: Path, settings_are_gone: bool
) -> None:
    command("batch", questions(tmp_path, line(1, 64), asking(2)), "--keep", "25%", "-o", str(out))
    if settings_are_gone:
        out.with_name(out.name + ".settings.json").unlink()
    before = out.read_bytes()
    for changed in (line(1, 65), asking(1)):
        done = again(questions(tmp_path, changed, asking(2)), out, "--keep", "25%")
        assert (done.code, out.read_bytes()) == (2, before)
        assert "the answer to question_id 1 is under another budget than line 1's" in done.stderr
        assert "--force" in done.stderr
    assert again(questions(tmp_path, line(1, "64"), asking(2)), out, "--keep", "25%").code == 0
    done = again(questions(tmp_path, line(1, 64), asking(2)), out, "--keep", "50%")
    assert (done.code, out.read_bytes()) == (2, before)


def test_a_dry_run_estimates_it(tmp_path: Path, model: FakeBatchModel, llava_folder: Path) -> None:
    path = questions(tmp_path, asking(1), line(2, 3), line(3, "all"), line(4, "nothing"))
    done = command("batch", path, "--dry-run", "-m", str(llava_folder), "--keep", "5")
    found = json.loads(done.stdout)
    assert (done.code, found["failed"], found["tokens"]["kept"]) == (1, 1, 5 + 3 + 16)
    assert "'nothing' is no budget" in found["first_failed"][0]["message"]


def test_lines_of_a_sweep_count_at_every_point(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    flags = ("--keep", "50%,25%", "--pruner", "adafv,saliency")
    path = questions(tmp_path, asking(1), line(2, 64), line(3, "some"))
    done = command("sweep", path, *flags, "-o", str(out))
    points = {(point["pruner"], point["keep"]): point for point in answers(done.stdout)}
    assert done.code == 1
    assert {point: found["tokens"]["kept"] for point, found in points.items()} == {
        ("none", "all"): 576, ("adafv", "50%"): (288 + 64) / 2, ("adafv", "25%"): (144 + 64) / 2,
        ("saliency", "50%"): (288 + 64) / 2, ("saliency", "25%"): (144 + 64) / 2,
    }  # fmt: skip
    lines = [answer for answer in answers(out.read_text()) if answer["question_id"] == 2]
    assert [(answer["pruner"], answer["keep"]) for answer in lines] == [
        ("none", "all"), ("adafv", "64"), ("saliency", "64"),
    ]  # fmt: skip
    model.asked.clear()
    same = again(questions(tmp_path, asking(1), line(2, 64)), out, *flags, to="sweep")
    assert (same.code, model.asked) == (0, [])
    assert [point["questions"] for point in answers(same.stdout)] == [2] * 5
    again(questions(tmp_path, asking(1), line(2, 65)), out, *flags, to="sweep")  # one more budget, as any other
    assert len(model.asked) == 2
