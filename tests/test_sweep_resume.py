"""`adafv sweep -o`: a log of answers that can be gone on with, extended, and looked at again."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adafv_cli.app import main
from tests.batch_fakes import FakeBatchModel, answers, asking, install, loader, questions
from tests.cli_fakes import Result, adafv, engine_with, picture

RUNS = [("none", "all"), ("adafv", "5%"), ("adafv", "25%")]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def sweep(path: str, out: Path, *flags: str) -> Result:
    return adafv("sweep", path, "-o", str(out), "--keep", "5%,25%", *flags)


def keys(out: Path) -> list[tuple[Any, str, str]]:
    return [(answer["question_id"], answer["pruner"], answer["keep"]) for answer in answers(out.read_text())]


def every(*ids: Any) -> list[tuple[Any, str, str]]:
    return [(one, *run) for one in ids for run in RUNS]


def test_the_log_has_the_lines_of_a_batch(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *map(asking, range(6)))
    done = sweep(path, out)
    assert done.code == 0 and len(answers(done.stdout)) == 3
    assert keys(out) == every(*range(6))
    batch = adafv("batch", path, "--keep", "5%").stdout
    assert [line for line in out.read_text().splitlines() if '"5%"' in line] == batch.splitlines()
    found = json.loads(out.with_name("answers.jsonl.settings.json").read_text())
    assert found["command"] == "sweep" and "keep" not in found


def test_without_a_log_nothing_is_written(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, *map(asking, range(3)))
    before = sorted(tmp_path.iterdir())
    assert adafv("sweep", path).code == 0
    assert sorted(tmp_path.iterdir()) == before


def test_only_what_is_left_is_asked(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *map(asking, range(4)))
    whole = sweep(path, out).stdout
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:7]) + lines[7][:40])  # the third question has one answer, and a torn one
    model.asked.clear()
    done = sweep(path, out, "--resume")
    assert done.code == 0
    assert [question.question_id for question in model.asked] == [2, 2, 3, 3, 3]
    assert sorted(keys(out)) == sorted(every(*range(4)))
    assert done.stdout == whole


def test_a_sweep_can_be_extended(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *map(asking, range(4)))
    sweep(path, out)
    model.asked.clear()
    done = adafv("sweep", path, "-o", str(out), "--resume", "--keep", "25%,50%", "--pruner", "adafv,uniform")
    assert done.code == 0 and len(model.asked) == 4 * 3
    assert [(p["pruner"], p["keep"], p["questions"]) for p in answers(done.stdout)] == [
        ("none", "all", 4), ("adafv", "25%", 4), ("adafv", "50%", 4), ("uniform", "25%", 4), ("uniform", "50%", 4),
    ]  # fmt: skip
    more = questions(tmp_path, *map(asking, range(6)))
    assert answers(sweep(more, out, "--resume").stdout)[0]["questions"] == 6


def test_a_finished_log_is_looked_at_without_a_model(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *(asking(number) | {"answer": "x"} for number in range(4)))
    sweep(path, out)
    model.loaded.clear()
    better = questions(tmp_path, *(asking(number) | {"answer": f"re: question {number}"} for number in range(3)))
    figure = tmp_path / "curve.svg"
    done = sweep(better, out, "--resume", "--plot", str(figure))
    assert (done.code, model.loaded) == (0, [])
    assert "nothing to do: all 3 lines are answered already" in done.stderr
    point = answers(done.stdout)[0]
    assert (point["questions"], point["accuracy"]["value"]) == (3, 1.0)  # marked by what the input says now
    assert figure.exists()


def test_standard_input_is_resumed_too(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    content = Path(questions(tmp_path, *map(asking, range(4)))).read_bytes()
    args = ("sweep", "-", "--image-folder", str(tmp_path), "-o", str(out), "--keep", "5%,25%")
    adafv(*args, stdin=content.split(b"\n")[0] + b"\n")
    model.asked.clear()
    done = adafv(*args, "--resume", stdin=content)
    assert len(model.asked) == 9 and answers(done.stdout)[2]["questions"] == 4


def test_failures_are_redone(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1), asking(2, "late.png"), asking(3))
    assert sweep(path, out).code == 1
    picture(tmp_path / "late.png")
    model.asked.clear()
    done = sweep(path, out, "--resume")
    assert (done.code, len(model.asked)) == (0, 3)
    assert keys(out) == every(1, 3, 2)
    assert [point["questions"] for point in answers(done.stdout)] == [3, 3, 3]


def test_an_existing_file_and_other_settings_are_refused(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1))
    sweep(path, out)
    before = out.read_bytes()
    assert "--resume goes on with it" in sweep(path, out).stderr
    done = sweep(path, out, "--resume", "--seed", "5")
    assert done.code == 2 and "seed: 0 in the file, 5 asked" in done.stderr
    assert out.read_bytes() == before
    assert sweep(path, out, "--force").code == 0


@pytest.mark.parametrize("flags", [("--crop-budget", "each"), ("--tiles", "2")])
def test_what_only_pruned_answers_go_by_is_compared_too(
    tmp_path: Path, model: FakeBatchModel, out: Path, flags: tuple[str, str]
) -> None:
    path = questions(tmp_path, *map(asking, range(2)))
    assert sweep(path, out, *flags).code == 0
    refused = sweep(path, out, "--resume")
    name = flags[0].removeprefix("--").replace("-", "_")
    assert refused.code == 2 and f"{name}: {flags[1]} in the file" in " ".join(refused.stderr.split())
    assert sweep(path, out, "--resume", *flags).code == 0


@pytest.mark.parametrize("setup", [{"crop_budget": "each"}, {"tiles": "2"}], ids=str)
def test_without_its_settings_a_sweep_is_compared_by_a_pruned_answer(
    tmp_path: Path, model: FakeBatchModel, out: Path, setup: dict[str, str]
) -> None:
    """The unpruned ones are asked with all tiles, and no crop has a budget of its own."""
    flags = [text for name, value in setup.items() for text in ("--" + name.replace("_", "-"), value)]
    assert sweep(questions(tmp_path, asking(0)), out, *flags).code == 0
    out.with_name(out.name + ".settings.json").unlink()
    told = [one | ({"setup": setup} if one["pruner"] != "none" else {}) for one in answers(out.read_text())]
    out.write_text("".join(json.dumps(one) + "\n" for one in told))
    refused = sweep(questions(tmp_path, asking(0)), out, "--resume")
    assert refused.code == 2 and f"{next(iter(setup.values()))} in the file" in " ".join(refused.stderr.split())
    assert sweep(questions(tmp_path, asking(0), asking(1)), out, "--resume", *flags).code == 0


def test_a_batch_does_not_go_on_with_a_sweep_nor_a_sweep_with_a_batch(
    tmp_path: Path, model: FakeBatchModel, out: Path
) -> None:
    path = questions(tmp_path, asking(1), asking(2))
    sweep(path, out)
    before = out.read_bytes()
    for flags in ((), ("--pruner", "none", "--keep", "all")):
        done = adafv("batch", path, "-o", str(out), "--resume", *flags)
        assert done.code == 4 and "go on as it was begun: with `adafv sweep`" in done.stderr
    assert out.read_bytes() == before
    adafv("batch", path, "-o", str(out), "--force")
    done = sweep(path, out, "--resume")
    assert done.code == 2 and "command: batch in the file, sweep asked" in done.stderr


def test_an_id_that_means_another_question_now(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    sweep(questions(tmp_path, asking(1)), out)
    done = sweep(questions(tmp_path, asking(1) | {"text": "something else"}), out, "--resume")
    assert done.code == 2 and "question_id 1 is to another question" in done.stderr


def test_repeated_ids(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, asking(1), asking(1) | {"text": "other"})
    assert sweep(path, out, "--repeated-ids").code == 0
    assert answers(sweep(path, out, "--repeated-ids", "--resume").stdout)[0]["questions"] == 2


def test_parts_can_be_put_together(tmp_path: Path, model: FakeBatchModel, out: Path) -> None:
    path = questions(tmp_path, *(asking(number, f"{'ab'[number % 2]}.png") for number in range(8)))
    parts = [tmp_path / f"part{number}.jsonl" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        assert sweep(path, part, "--shard", f"{number}/2").code == 0
    out.write_bytes(b"".join(part.read_bytes() for part in parts))
    model.asked.clear()
    done = sweep(path, out, "--resume")
    assert not model.asked and answers(done.stdout)[0]["questions"] == 8


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Whatever the moment, each whole line is there once, and the end is the same."""
    lines = [asking(number, "gone.png" if number % 7 == 0 else "a.png") for number in range(60)]
    path, out = questions(tmp_path, *lines), tmp_path / "answers.jsonl"
    engine = engine_with(loader(FakeBatchModel(step_s=0.002)))
    args = ["adafv", "sweep", path, "-o", str(out), "--keep", "5%,25%", "--resume", "--batch-size", "2"]
    kills, rng = 0, random.Random(0)
    while kills < 12:
        pid = os.fork()
        if not pid:
            _child(engine, args)
        time.sleep(rng.uniform(0, 0.12))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += 1
        raw = out.read_bytes() if out.exists() else b""
        whole = raw[: raw.rfind(b"\n") + 1]
        found = [(a["question_id"], a["pruner"], a["keep"]) for a in answers(whole.decode())]
        assert len(found) == len(set(found))
        if not os.WIFSIGNALED(status):
            out.unlink(missing_ok=True)  # it came to its end: once more
    pid = os.fork()
    if not pid:
        _child(engine, args)
    os.waitpid(pid, 0)
    assert sorted(keys(out)) == sorted(every(*range(60)))


def _child(engine: Any, args: list[str]) -> None:
    sys.modules["adafv.engine"] = engine
    sys.argv = args
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    try:
        main()
    finally:
        os._exit(0)
