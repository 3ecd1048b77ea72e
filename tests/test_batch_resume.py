"""`-o`: nothing that was written is lost, nothing is answered twice, and a run goes on only as it was begun."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import Result, adafv, picture


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def ids(out: Path) -> list[Any]:
    return [answer["question_id"] for answer in answers(out.read_text())]


def again(path: str, out: Path, *flags: str) -> Result:
    return adafv("batch", path, "-o", str(out), "--resume", *flags)


def test_the_file_holds_what_stdout_would(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *map(asking, range(20)))
    done = adafv("batch", path, "-o", str(out))
    assert (done.code, done.stdout) == (0, "")
    assert out.read_text() == adafv("batch", path).stdout


def test_an_existing_file_is_refused_before_the_model_loads(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1))
    out.write_text("precious\n")
    done = adafv("batch", path, "-o", str(out))
    assert done.code == 2
    assert "exists" in done.stderr and "--resume" in done.stderr and "--force" in done.stderr
    assert not model.loaded
    assert out.read_text() == "precious\n"


def test_an_empty_file_holds_nothing_to_lose(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    out.touch()
    assert adafv("batch", questions(tmp_path, asking(1)), "-o", str(out)).code == 0
    assert ids(out) == [1]


def test_force_replaces(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    out.write_text("old\n")
    assert adafv("batch", questions(tmp_path, asking(1)), "-o", str(out), "--force").code == 0
    assert ids(out) == [1]


def test_force_replaces_nothing_when_the_model_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    from adafv.errors import CheckpointError
    from tests.cli_fakes import FakeModel
    from tests.cli_fakes import install as install_failure

    install_failure(monkeypatch, FakeModel(), CheckpointError("model: gone", "look"))
    out.write_text("old\n")
    path = questions(tmp_path, asking(1))
    assert adafv("batch", path, "-o", str(out), "--force").code == 3
    assert out.read_text() == "old\n"
    fresh = tmp_path / "fresh.jsonl"
    assert adafv("batch", path, "-o", str(fresh)).code == 3
    assert not fresh.exists()


def test_resume_begins_where_there_is_nothing(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    assert again(questions(tmp_path, asking(1)), out).code == 0
    assert ids(out) == [1]


def test_resume_skips_what_is_done(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    adafv("batch", questions(tmp_path, *map(asking, range(5))), "-o", str(out))
    before = out.read_bytes()
    model.asked.clear()
    done = again(questions(tmp_path, *map(asking, range(9))), out)
    assert (done.code, ids(out)) == (0, list(range(9)))
    assert [question.question_id for question in model.asked] == [5, 6, 7, 8]
    assert out.read_bytes().startswith(before)


def test_nothing_left_to_do_loads_no_model(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *map(asking, range(5)))
    adafv("batch", path, "-o", str(out))
    model.loaded.clear()
    done = again(path, out)
    assert (done.code, model.loaded) == (0, [])
    assert "nothing to do: all 5 lines are answered already" in done.stderr


def test_resume_redoes_what_failed(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1), asking(2, "late.png"), "broken", asking(4))
    first = adafv("batch", path, "-o", str(out))
    assert first.code == 1
    assert "redo what failed:\n  adafv" in first.stderr
    mode = 0o640
    out.chmod(mode)
    picture(tmp_path / "late.png")
    done = again(path, out)
    assert (done.code, ids(out)) == (1, [1, 4, 2, 3])
    assert answers(out.read_text())[2]["error"] is None
    assert out.stat().st_mode & 0o777 == mode
    assert sorted(child.name for child in tmp_path.iterdir() if "answers" in child.name) == [
        "answers.jsonl",
        "answers.jsonl.settings.json",
    ]


@pytest.mark.parametrize("cut", [1, 2, 100, 300])
def test_a_torn_last_line_is_dropped_and_redone(tmp_path: Path, model: FakeBatchModel, out: Path, cut: int) -> None:
    path = questions(tmp_path, *map(asking, range(5)))
    adafv("batch", path, "-o", str(out))
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    assert again(path, out).code == 0
    assert out.read_bytes() == whole


def test_a_torn_line_behind_a_failed_one(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1), asking(2, "gone.png"), asking(3))
    adafv("batch", path, "-o", str(out))
    out.write_bytes(out.read_bytes()[:-5])
    assert again(path, out).code == 1
    assert ids(out) == [1, 2, 3]


def test_answers_that_are_there_twice_become_one(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1), asking(2))
    adafv("batch", path, "-o", str(out))
    whole = out.read_bytes()
    out.write_bytes(whole + whole)
    again(questions(tmp_path, asking(1), asking(2), asking(3)), out)
    assert ids(out) == [1, 2, 3]


@pytest.mark.parametrize(
    "flags,part",
    [
        (("--keep", "64"), "keep: 25% in the file, 64 asked"),
        (("--pruner", "uniform"), "pruner: adafv in the file, uniform asked"),
        (("-m", "other"), "model: demo in the file, other asked"),
        (("--positions", "original"), "positions: compact in the file, original asked"),
        (("--crop-budget", "each"), "crop_budget: joint in the file, each asked"),
        (("--max-new-tokens", "9"), "max_new_tokens: 128 in the file, 9 asked"),
        (("--temperature", "0.5"), "temperature: 0.0 in the file, 0.5 asked"),
        (("--seed", "2"), "seed: 0 in the file, 2 asked"),
        (("--system", "be brief"), "system: None in the file, be brief asked"),
        (("--dtype", "float16"), "dtype: float32 in the file, float16 asked"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, model: FakeBatchModel, out: Path, flags: tuple[str, ...], part: str
) -> None:
    path = questions(tmp_path, asking(1), asking(2))
    adafv("batch", path, "-o", str(out))
    before, _ = out.read_bytes(), model.loaded.clear()
    done = again(path, out, *flags)
    assert (done.code, model.loaded) == (2, [])
    assert part in done.stderr
    assert out.read_bytes() == before


def test_what_dtype_auto_came_to_is_recorded_and_compared(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    """As on another machine, where the same flags come to something else."""
    settings = out.with_name(out.name + ".settings.json")
    adafv("batch", questions(tmp_path, asking(1)), "-o", str(out))
    assert json.loads(settings.read_text())["dtype"] == "float32"
    path, before, model.dtype = questions(tmp_path, asking(1), asking(2)), out.read_bytes(), "bfloat16"
    done = again(path, out)
    assert (done.code, out.read_bytes()) == (2, before)
    assert "(dtype: float32 in the file, bfloat16 here)" in done.stderr and "--dtype float32" in done.stderr
    model.dtype = "float32"
    assert again(path, out, "--dtype", "float32").code == 0 and ids(out) == [1, 2]
    older = json.loads(settings.read_text()) | {"dtype": "auto"}
    settings.write_text(json.dumps(older))
    model.dtype = "bfloat16"
    assert again(questions(tmp_path, *map(asking, range(1, 4))), out).code == 0 and ids(out) == [1, 2, 3]
    assert json.loads(settings.read_text())["dtype"] == "bfloat16"


def test_settings_are_compared_with_the_lines_when_their_file_is_gone(
    tmp_path: Path, model: FakeBatchModel, out: Path
) -> None:
    adafv("batch", questions(tmp_path, asking(1)), "-o", str(out))
    out.with_name(out.name + ".settings.json").unlink()
    path = questions(tmp_path, asking(1), asking(2))
    done = again(path, out, "--keep", "64", "--pruner", "uniform")
    assert done.code == 2
    assert "(keep: 25% in the file, 64 asked; pruner: adafv in the file, uniform asked)" in done.stderr
    done = again(path, out, "--seed", "5")
    assert done.code == 0
    assert "note: answers.jsonl.settings.json is gone: only what the answers say could be compared" in done.stderr


@pytest.mark.parametrize(
    ("setup", "flags", "part"),
    [
        (None, ("--crop-budget", "each"), "crop_budget: joint in the file, each asked"),
        (None, ("--pad",), "pad: False in the file, True asked"),
        (None, ("--system", "Be brief."), "system: None in the file, Be brief. asked"),
        (None, ("--protocol", "published"), "protocol: None in the file, published asked"),
        ({"crop_budget": "each"}, (), "crop_budget: each in the file, joint asked"),
        ({"system": "vicuna"}, (), "system: vicuna in the file, None asked"),
        ({"protocol": "published", "pad": True}, ("--pad",), "protocol: published in the file, None asked"),
        ({"pad": True}, ("--no-pad",), "pad: True in the file, False asked"),
        ({"crop_budget": "each", "pad": True, "system": "vicuna"}, ("--crop-budget", "each", "--system", "vicuna"), ""),
        ({"protocol": "published", "pad": True, "system": "vicuna"}, ("--protocol", "published"), ""),
    ],
)
def test_how_questions_were_asked_is_compared_with_the_lines(
    tmp_path: Path, model: FakeBatchModel, out: Path, setup: dict[str, Any] | None, flags: tuple[str, ...], part: str
) -> None:
    adafv("batch", questions(tmp_path, asking(1)), "-o", str(out))
    out.with_name(out.name + ".settings.json").unlink()
    if setup is not None:
        out.write_text(json.dumps(json.loads(out.read_text()) | {"setup": setup}) + "\n")
    done = again(questions(tmp_path, asking(1), asking(2)), out, *flags)
    assert done.code == (2 if part else 0), done.stderr
    assert part in done.stderr


def test_settings_that_change_no_answer_may_change(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    adafv("batch", questions(tmp_path, asking(1)), "-o", str(out))
    path = questions(tmp_path, asking(1), asking(2))
    assert again(path, out, "--batch-size", "1", "--device-map", "cpu", "--shard", "1/1").code == 0


def test_an_id_that_means_another_question_now(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    """Line numbers are ids where there are no others, and they move when a line is put in front."""
    adafv("batch", questions(tmp_path, {"image": "a.png", "text": "one"}), "-o", str(out))
    model.loaded.clear()
    path = questions(tmp_path, {"image": "a.png", "text": "zero"}, {"image": "a.png", "text": "one"})
    done = again(path, out)
    assert (done.code, model.loaded) == (2, [])
    assert "question_id 1 is to another question than line 1's" in done.stderr
    done = adafv("batch", "-", "--image-folder", str(tmp_path), "-o", str(out), "--resume",
                 stdin=Path(path).read_bytes())  # fmt: skip
    assert (done.code, ids(out)) == (1, [1, "line 1", 2])


def test_a_file_of_something_else_is_left_alone(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1))
    adafv("batch", path, "-o", str(out))
    for line in (b'{"question_id": 3, "text": "q"}\n', b"\x00\x00\n", b"[]\n"):
        out.write_bytes(out.read_bytes().split(b"\n")[0] + b"\n" + line)
        before = out.read_bytes()
        done = again(path, out)
        assert done.code == 4
        assert "line 2 of" in done.stderr and "no answer of" in done.stderr
        assert out.read_bytes() == before


def test_repeated_ids_are_resumed_as_they_were_begun(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    lines = [asking(1), asking(1) | {"text": "other"}, asking(1) | {"text": "third"}]
    adafv("batch", questions(tmp_path, *lines[:2]), "-o", str(out), "--repeated-ids")
    path = questions(tmp_path, *lines)
    done = again(path, out)
    assert done.code == 4 and "--repeated-ids" in done.stderr
    assert again(path, out, "--repeated-ids").code == 0
    assert [answer["prompt"] for answer in answers(out.read_text())] == ["question 1", "other", "third"]


def test_a_second_writer_is_refused(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1))
    with out.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for flags in ((), ("--resume",), ("--force",)):
            done = adafv("batch", path, "-o", str(out), *flags)
            assert done.code == 2
            assert "is being written by another process" in done.stderr
    assert not model.loaded
    assert adafv("batch", path, "-o", str(out)).code == 0


def test_a_filesystem_without_locks(
    tmp_path: Path, model: FakeBatchModel, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(number: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = questions(tmp_path, asking(1), asking(2, "gone.png"))
    assert adafv("batch", path, "-o", str(out)).code == 1
    assert again(path, out).code == 1
    assert ids(out) == [1, 2]


def test_a_symbolic_link_stays_one(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(out)
    path = questions(tmp_path, asking(1), asking(2, "gone.png"))
    adafv("batch", path, "-o", str(link))
    again(path, link)
    assert link.is_symlink()
    assert ids(out) == [1, 2]


def test_the_settings_are_recorded(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    import adafv as library

    adafv("batch", questions(tmp_path, asking(1)), "-o", str(out), "--keep", "64")
    found = json.loads(out.with_name("answers.jsonl.settings.json").read_text())
    assert (found["adafv"], found["keep"], found["model"]) == (library.__version__, "64", "demo")


def test_what_was_cut_off_before_the_first_line_leaves_nothing(
    tmp_path: Path, model: FakeBatchModel, out: Path
) -> None:
    path = questions(tmp_path, asking(1) | {"text": "explode"})
    assert adafv("batch", path, "-o", str(out)).code == 1
    assert not list(tmp_path.glob("*answers*"))
