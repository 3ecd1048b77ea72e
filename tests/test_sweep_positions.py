"""Positions as an axis of a sweep: in the grid, the answers, the points, the log, and on resuming an older log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import adafv
from adafv import BatchSettings, Question, RunSettings
from adafv.streaming.runs import grid
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import Result
from tests.cli_fakes import adafv as command
from tests.conftest import noise

BOTH = ("--positions", "compact,original")
POINTS = [("none", "all", None), ("adafv", "25%", None), ("adafv", "50%", None), ("adafv", "25%", "original"),
          ("adafv", "50%", "original")]  # fmt: skip


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def sweep(path: str, out: Path, *flags: str) -> Result:
    return command("sweep", path, "-o", str(out), "--keep", "25%,50%", *flags)


def named(text: str) -> list[tuple[str, str, str | None]]:
    return [(found["pruner"], found["keep"], found.get("positions")) for found in answers(text)]


def test_a_grid_has_each_pruner_at_each_budget_with_both() -> None:
    run = RunSettings(seed=3)
    runs = grid(run, ["adafv"], ["25%", "50%"], ["compact", "original", "compact"])
    assert [(one.pruner, one.keep, one.named["positions"], one.seed) for one in runs] == [(*p, 3) for p in POINTS]
    assert grid(run, ["adafv"], ["25%"]) == grid(run, ["adafv"], ["25%"], ["compact"])
    alone = grid(RunSettings(positions="original"), ["adafv"], ["25%"])
    assert [one.positions for one in alone] == ["compact", "original"]  # a whole image has but one kind


def test_answers_are_those_of_each_alone(llava: adafv.Model) -> None:
    runs = grid(RunSettings(max_new_tokens=6), ["adafv"], ["4", "100"], ["compact", "original"])
    asked = [Question(i, noise(60, 60, seed=i), "what color is the sign") for i in range(3)]
    rows = list(llava.sweep(asked, runs, BatchSettings(batch_size=3)))
    for question, row in zip(asked, rows, strict=True):
        assert [answer.positions for answer in row] == [None, None, None, "original", "original"]
        for run, answer in zip(runs, row, strict=True):
            alone = llava.ask(question.image, question.text, run)
            assert (alone.text, alone.tokens, alone.positions) == (answer.text, answer.tokens, answer.positions)
        assert len({answer.answer_id for answer in row}) == 5


def test_points_lines_and_log(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1), asking(2))
    done = sweep(path, out, *BOTH)
    assert (done.code, named(done.stdout)) == (0, POINTS)
    assert named(out.read_text()) == POINTS * 2
    assert all(point["questions"] == 2 for point in answers(done.stdout))
    model.asked.clear()
    again = sweep(path, out, *BOTH, "--resume")
    assert (again.stdout, model.asked) == (done.stdout, [])
    one = sweep(path, out, "--positions", "original", "--resume")  # the same log, looked at in part
    assert (named(one.stdout), model.asked) == ([POINTS[0], *POINTS[3:]], [])


def test_a_sweep_is_extended_by_positions(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1))
    sweep(path, out)
    model.asked.clear()
    done = sweep(path, out, *BOTH, "--resume")
    assert (done.code, named(done.stdout), len(model.asked)) == (0, POINTS, 2)


def test_an_older_log_whose_lines_do_not_say(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1))
    sweep(path, out, "--positions", "original")
    lines = [{key: value for key, value in line.items() if key != "positions"} for line in answers(out.read_text())]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = out.with_name(out.name + ".settings.json")
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"positions": "original"}))
    path, before = questions(tmp_path, asking(1), asking(2)), out.read_bytes()
    for flags in (BOTH, ()):
        done = sweep(path, out, *flags, "--resume")
        assert (done.code, out.read_bytes()) == (2, before)
        assert "positions: original in the file, compact asked" in done.stderr
    for count in (3, 0):  # what is resumed stays what it was, however often
        model.asked.clear()
        done = sweep(path, out, "--positions", "original", "--resume")
        assert (done.code, named(done.stdout), len(model.asked)) == (0, [POINTS[0], *POINTS[3:]], count)


@pytest.mark.parametrize("given", ["compact,old", "old"])
def test_what_is_none(tmp_path: Path, model: FakeBatchModel, out: Path, given: str) -> None:
    done = sweep(questions(tmp_path, asking(1)), out, "--positions", given)
    assert done.code == 2 and "--positions: 'old' is not one of compact, original" in done.stderr
    assert sweep(questions(tmp_path, asking(1)), out, "--positions", ",").code == 2


def test_the_figure_and_the_report_tell_them_apart(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *(asking(number) | {"answer": f"question {number}"} for number in range(4)))
    figure, report = tmp_path / "curve.svg", tmp_path / "run.json"
    done = sweep(path, out, *BOTH, "--plot", str(figure), "--report", str(report))
    assert done.code == 0 and "adafv (original)" in figure.read_text()
    assert json.loads(report.read_text())["settings"]["positions"] == "compact,original"
