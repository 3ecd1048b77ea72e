"""`--select` over files: what is known of an image, what is recorded and resumed, and an axis of a sweep."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from adafv import RunSettings, knowing
from adafv.quality.reference import Reference
from adafv.streaming.runs import effective, grid
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import adafv

IMAGE, ALL = ("--select", "image"), ("--select", "question,image,split")
POINTS = [("none", None), ("adafv", None), ("adafv", "image"), ("adafv", "split")]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def four(folder: Path, *more: object) -> str:
    """Two questions about either image, in turn, one image under two names of one file."""
    lines = [asking(1), asking(2, "b.png"), asking(3, "./a.png"), asking(4, "b.png"), b"no JSON\n", *more]
    return questions(folder, *lines)


def known(model: FakeBatchModel) -> dict[Any, tuple[str, ...]]:
    return {one.question_id: one.known for one in model.asked}


def texts(*numbers: int) -> tuple[str, ...]:
    return tuple(f"question {number}" for number in numbers)


WHOLE = {1: texts(1, 3), 2: texts(2, 4), 3: texts(1, 3), 4: texts(2, 4)}


def named(text: str) -> list[tuple[str, str | None]]:
    return [(found["pruner"], found.get("select")) for found in answers(text)]


@pytest.mark.parametrize("select", ["image", "split"])
def test_the_whole_file_is_known(tmp_path: Path, model: FakeBatchModel, select: str) -> None:
    done = adafv("batch", four(tmp_path), "--select", select)
    assert (done.code, known(model)) == (1, WHOLE)  # the line that is no JSON
    assert [one.get("select") for one in answers(done.stdout)] == [select] * 5
    assert model.runs[0][0].select == select


def test_nothing_is_known_where_each_chooses(tmp_path: Path, model: FakeBatchModel) -> None:
    done = adafv("batch", four(tmp_path))
    assert set(known(model).values()) == {()} and "select" not in done.stdout


def test_shards_know_what_the_whole_knows(tmp_path: Path, model: FakeBatchModel) -> None:
    path = four(tmp_path)
    for part in ("1/2", "2/2"):
        adafv("batch", path, *IMAGE, "--shard", part)
    assert known(model) == WHOLE and len(model.asked) == 4


def test_a_resumed_run_knows_what_was_answered(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = four(tmp_path)
    adafv("batch", path, *IMAGE, "-o", str(out))
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:2]))
    model.asked.clear()
    adafv("batch", path, *IMAGE, "-o", str(out), "--resume")
    assert known(model) == {3: texts(1, 3), 4: texts(2, 4)}
    assert len(answers(out.read_text())) == 5


def test_another_select_or_other_questions_are_refused(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    adafv("batch", four(tmp_path), *IMAGE, "-o", str(out))
    before = out.read_bytes()
    for path, flags, said in (
        (four(tmp_path), (), "select: image in the file, question asked"),
        (four(tmp_path), ("--select", "split"), "select: image in the file, split asked"),
        (four(tmp_path, asking(6)), IMAGE, "known_questions: INPUT has other questions now"),
    ):
        done = adafv("batch", path, *flags, "-o", str(out), "--resume")
        assert (done.code, out.read_bytes()) == (2, before) and said in done.stderr
    out.with_name(out.name + ".settings.json").unlink()
    done = adafv("batch", four(tmp_path), "-o", str(out), "--resume")
    assert done.code == 2 and "select: image in the file, question asked" in done.stderr


def test_an_output_from_before_there_was_a_choice_goes_on(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1))
    adafv("batch", path, "-o", str(out))
    settings = out.with_name(out.name + ".settings.json")
    left = json.loads(settings.read_text())
    del left["select"]
    settings.write_text(json.dumps(left))
    path = questions(tmp_path, asking(1), asking(2))
    assert adafv("batch", path, *IMAGE, "-o", str(out), "--resume").code == 2
    assert adafv("batch", path, "-o", str(out), "--resume").code == 0
    assert len(answers(out.read_text())) == 2


@pytest.mark.parametrize("command", ["batch", "sweep"])
def test_a_pipe_is_refused(command: str, tmp_path: Path, model: FakeBatchModel) -> None:
    lines = Path(four(tmp_path)).read_bytes()
    done = adafv(command, "-", *IMAGE, stdin=io.BytesIO(lines).getvalue())
    assert (done.code, model.loaded) == (2, [])
    assert "--select image: INPUT is a pipe" in done.stderr and "--select question" in done.stderr


def test_a_pipe_is_taken_where_there_is_nothing_to_choose(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = Path(four(tmp_path)).read_bytes()
    done = adafv("batch", "-", *IMAGE, "--pruner", "none", "--image-folder", str(tmp_path), stdin=lines)
    assert done.code == 1 and len(model.asked) == 4 and "select" not in done.stdout  # one line is no JSON


def test_too_much_text_is_refused(tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adafv.knowing._MOST_BYTES", 3 * (knowing._AROUND + len("question 1")))
    done = adafv("batch", four(tmp_path), *IMAGE)
    assert (done.code, model.loaded) == (2, []) and "--shard" in done.stderr
    assert adafv("batch", four(tmp_path), *IMAGE, "--shard", "1/2").code != 2


def test_what_is_no_choice(tmp_path: Path, model: FakeBatchModel) -> None:
    path = four(tmp_path)
    for flags, said in (
        (("--select", "every"), "--select: 'every' is not one of question, image, split"),
        (("--select", "split", "--pruner", "mmtok"), "--select: split takes apart"),
        (("--select", "split", "--crop-budget", "each"), "crop_budget joint"),
    ):
        done = adafv("batch", path, *flags)
        assert done.code == 2 and said in done.stderr
    assert adafv("sweep", path, "--select", "question,split", "--pruner", "adafv,mmtok").code == 2


def test_runs_that_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    image = RunSettings(keep=5, select="image")
    question, blind = RunSettings(keep=5), RunSettings(keep=5, pruner="uniform", select="image")
    assert effective(image, 10, 1) == effective(question, 10, 9) != effective(image, 10, 2)
    assert effective(blind, 10, 9) == effective(RunSettings(keep=5, pruner="uniform"), 10)
    assert effective(image, 5, 9) == effective(RunSettings(keep="all", pruner="none"), 5)
    runs = grid(RunSettings(), ["adafv"], ["5"], ["compact", "original"], ["question", "image"])
    assert [one.named["select"] for one in runs] == [None, None, None, "image", "image"]


def test_a_sweep_has_an_axis(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = four(tmp_path)
    sweep = ("sweep", path, "-o", str(out), "--keep", "25%")
    done = adafv(*sweep, *ALL, "--report", str(tmp_path / "run.md"), "--plot", str(tmp_path / "curve.svg"))
    assert named(done.stdout) == POINTS and "3 settings in 3 series compared" in done.stderr
    assert [one[1] for one in named(out.read_text())][:4] == [None, None, "image", "split"]
    assert "adafv 25% (split)" in (tmp_path / "run.md").read_text()
    assert "adafv (image)" in (tmp_path / "curve.svg").read_text()
    model.asked.clear()
    again = adafv(*sweep, *ALL, "--resume")
    assert again.stdout == done.stdout and len(model.asked) == 0
    one = adafv(*sweep, *IMAGE, "--resume", "--answer-files", str(tmp_path / "files"))
    assert named(one.stdout) == [POINTS[0], POINTS[2]] and not model.asked
    assert {file.name for file in (tmp_path / "files").iterdir()} == {"unpruned.jsonl", "adafv-25%-image.jsonl"}
    other = adafv("sweep", four(tmp_path, asking(6)), *sweep[2:], *ALL, "--resume")
    assert other.code == 2 and "known_questions: " in other.stderr


def test_a_sweep_is_extended_by_choices(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    sweep = ("sweep", four(tmp_path), "-o", str(out), "--keep", "25%")
    adafv(*sweep)
    model.asked.clear()
    done = adafv(*sweep, *ALL, "--resume")
    assert named(done.stdout) == POINTS and len(model.asked) == 8
    assert known(model) == WHOLE


def test_a_sweep_remembers_who_chose_together(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    """Also through a run in which each question chooses for itself, and which may ask others."""
    sweep = ("sweep", four(tmp_path), "-o", str(out), "--keep", "25%")
    adafv(*sweep, *ALL)
    more = ("sweep", four(tmp_path, asking(6)), *sweep[2:], "--resume")
    assert adafv(*more).code == 1  # the line that is no JSON
    model.asked.clear()
    done = adafv(*more, *ALL)
    assert (done.code, model.asked) == (2, []) and "known_questions: INPUT has other questions" in done.stderr


def test_a_choice_is_compared_with_the_published_one() -> None:
    settings = [("none", "all", "compact", "question")]
    settings += [(name, "5", "compact", one) for name in ("adafv", "mmtok") for one in ("question", "image")]
    found = [Reference("adafv").place(settings, one) for one in settings]
    assert found == [None, None, 1, 1, 2]  # itself by question, and others at the same


def test_a_dry_run_says_what_each_costs(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, *(asking(number) for number in range(6)))
    found = {
        select: json.loads(adafv("batch", path, "--dry-run", "--select", select, "-q").stdout)
        for select in ("question", "image", "split")
    }
    spent = found["question"]["flops"]["by_select"]
    assert spent["image"] < spent["split"] < spent["question"]
    for select, one in found.items():
        assert one["flops"]["by_select"] == spent and one["flops"]["total"] == spent[select]
        assert one["select"] == select
    said = adafv("batch", path, "--dry-run").stderr
    assert "--select       question " in said and " at most" in said
    blind = json.loads(adafv("batch", path, "--dry-run", "--pruner", "uniform", "-q").stdout)
    assert blind["flops"]["by_select"] == {}


@pytest.mark.parametrize("keep,said", [("255", "up to 1 question an image"), ("25%", "up to 3 questions an image")])
def test_a_dry_run_counts_in_words(tmp_path: Path, model: FakeBatchModel, keep: str, said: str) -> None:
    path = questions(tmp_path, *(asking(number) for number in range(6)))
    assert said in adafv("batch", path, "--dry-run", "--keep", keep).stderr
