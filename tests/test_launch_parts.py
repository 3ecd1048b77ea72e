"""What a launch left beside the output: gone on with, replaced, or cleared away, and never another launch's."""

from __future__ import annotations

import json
import os
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adafv.errors import DeviceError
from adafv_cli.work import parts
from adafv_cli.work.earlier import Keys
from adafv_cli.work.lines import id_key
from adafv_cli.work.outlog import Log
from adafv_cli.work.parts import Parts
from adafv_cli.work.world import World
from tests.batch_fakes import FakeBatchModel, asking, install, questions
from tests.cli_fakes import Result, engine_with
from tests.cli_fakes import adafv as run_adafv

LINES = 6


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return install(monkeypatch)


def batch(folder: Path, *more: str, source: str | None = None, stdin: bytes = b"") -> Result:
    source = source or str(folder / "questions.jsonl")
    flags = ("--image-folder", str(folder), "-o", str(folder / "out.jsonl"), "-q")
    return run_adafv("batch", source, *flags, *more, stdin=stdin)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def files(folder: Path) -> set[str]:
    return {path.name.removeprefix("out.jsonl") for path in folder.iterdir() if path.name.startswith("out.jsonl")}


def left_by_a_launch(folder: Path) -> bytes:
    """Half of the answers in a part, the input's bytes."""
    path = Path(questions(folder, *map(asking, range(LINES))))
    assert batch(folder, "--shard", "1/1").code == 0
    out = folder / "out.jsonl"
    (folder / "out.jsonl.part-1-of-2").write_bytes(b"".join(out.read_bytes().splitlines(True)[::2]))
    (folder / "out.jsonl.settings.json").rename(folder / "out.jsonl.part-1-of-2.settings.json")
    out.unlink()
    return path.read_bytes()


def test_a_pipe_goes_on_with_the_parts_of_a_launch(tmp_path: Path, fake: FakeBatchModel) -> None:
    piped = left_by_a_launch(tmp_path)
    fake.asked.clear()
    assert batch(tmp_path, "--resume", source="-", stdin=piped).code == 0
    assert [one.question_id for one in fake.asked] == [1, 3, 5]
    assert sorted(line["question_id"] for line in lines(tmp_path)) == list(range(LINES))
    assert files(tmp_path) == {"", ".settings.json"}


def as_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)


def launcher_ends(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits for another process finds its own parent gone."""
    patch.setattr(parts, "os", SimpleNamespace(getppid=count().__next__))


def test_a_second_launch_cuts_no_part_of_one_that_runs(
    tmp_path: Path, fake: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even that of a process that has finished: only the first one of a launch knows whether the output is free."""
    left_by_a_launch(tmp_path)
    as_first(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    before = beside(tmp_path)
    with monkeypatch.context() as gone:
        launcher_ends(gone)  # for its first process was refused
        refused = batch(tmp_path, "--force")
    assert "the launcher is gone, and the first process has not begun" in refused.stderr
    assert beside(tmp_path) == before
    first = Parts(tmp_path / "out.jsonl", World.of(os.environ | {"RANK": "0"}))
    first.claim()
    assert batch(tmp_path, "--force").code == 0
    assert beside(tmp_path)["out.jsonl.part-1-of-2"] != before["out.jsonl.part-1-of-2"]
    assert ".part-0-of-2.launch" in files(tmp_path)
    first.disclaim()
    assert ".part-0-of-2.launch" not in files(tmp_path)


def beside(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out.jsonl*")}


def test_parts_of_a_launch_that_runs_are_not_forced_away(tmp_path: Path, fake: FakeBatchModel) -> None:
    left_by_a_launch(tmp_path)
    with Log(tmp_path / "out.jsonl", force=True):  # its first process
        before = beside(tmp_path)
        refused = batch(tmp_path, "--force")
        assert refused.code == 2 and "is being written by another process" in refused.stderr
        assert beside(tmp_path) == before
    assert batch(tmp_path, "--force").code == 0
    assert files(tmp_path) == {"", ".settings.json"} and len(lines(tmp_path)) == LINES


@pytest.mark.parametrize("how", ["--force", "--resume"])
def test_a_model_that_does_not_load_costs_a_launch_nothing(
    tmp_path: Path, fake: FakeBatchModel, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    questions(tmp_path, *(asking(number, f"gone{number}.png") for number in range(20)), asking(20))  # some are its own
    assert batch(tmp_path).code == 1
    before = beside(tmp_path)
    as_first(monkeypatch)

    def load(settings: Any) -> Any:
        raise DeviceError("no room", "make some")

    monkeypatch.setitem(sys.modules, "adafv.engine", engine_with(load))
    assert batch(tmp_path, how).code == 3
    assert beside(tmp_path) == before


def test_processes_that_dtype_auto_means_different_things_to_do_not_mix(
    tmp_path: Path, fake: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_a_launch(tmp_path)
    before, fake.dtype = beside(tmp_path), "bfloat16"
    refused = batch(tmp_path, "--resume")
    assert refused.code == 2 and "(dtype: float32 in the file, bfloat16 here)" in refused.stderr
    merged = beside(tmp_path)
    assert merged["out.jsonl"] == before["out.jsonl.part-1-of-2"]
    assert json.loads(merged["out.jsonl.settings.json"])["dtype"] == "float32"
    for path in tmp_path.glob("out.jsonl*"):
        path.unlink()
    as_first(monkeypatch)
    ours = World.of(os.environ).launch
    part = tmp_path / "out.jsonl.part-1-of-2"
    for launch, said in (
        ("another", "the launcher is gone"),
        (ours, f"{part.name} was made with other settings (dtype:"),
    ):
        part.write_bytes(before[part.name])
        settings = json.loads(before[f"{part.name}.settings.json"]) | {"launch": launch}
        part.with_name(f"{part.name}.settings.json").write_text(json.dumps(settings))
        with monkeypatch.context() as gone:
            launcher_ends(gone)  # or it would wait for the other process
            assert said in batch(tmp_path, "--force").stderr


def test_a_first_process_with_nothing_to_do_forgets_no_dtype(
    tmp_path: Path, fake: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads no model, which would tell what `auto` comes to, and is the one that records the settings."""
    left_by_a_launch(tmp_path)
    questions(tmp_path, *map(asking, range(0, LINES, 2)))
    fake.asked.clear()
    as_first(monkeypatch)
    said = {"launch": World.of(os.environ).launch, "code": 0}
    (tmp_path / "out.jsonl.part-1-of-2.done").write_text(json.dumps(said))
    assert batch(tmp_path, "--resume").code == 0 and not fake.asked
    assert files(tmp_path) == {"", ".settings.json"} and len(lines(tmp_path)) == LINES // 2
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text())["dtype"] == "float32"


def test_a_later_launch_under_the_same_number_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
    read, started = Path.read_text, "100"

    def stat(path: Path, *args: Any, **more: Any) -> str:
        if path.name == "stat":
            return f"7 (a ) name) S {' '.join(str(number) for number in range(1, 19))} {started} 0 0"
        return "boot" if path.name == "boot_id" else read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", stat)
    first = World.of(said)
    assert World.of(said | {"RANK": "0"}).launch == first.launch and "-100-boot" in first.launch
    started = "200"
    assert World.of(said).launch != first.launch


def test_markers_without_a_part_go_too_and_satisfy_nobody(tmp_path: Path, fake: FakeBatchModel) -> None:
    questions(tmp_path, *map(asking, range(LINES)))
    for how in ("--force", "--resume"):
        (tmp_path / "out.jsonl.part-1-of-2.done").write_text('{"launch": "none-0-1", "code": 0}')
        assert batch(tmp_path, how).code == 0
        assert files(tmp_path) == {"", ".settings.json"}


def test_a_part_that_is_removed_meanwhile_is_none(
    tmp_path: Path, fake: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Parts(tmp_path / "out.jsonl", World(1, 2, "a"))
    monkeypatch.setattr(left, "there", lambda: [tmp_path / "out.jsonl.part-0-of-2"])
    left.check(resume=False, force=False)


def test_merging_unites_the_lines_that_a_server_died_at(tmp_path: Path, fake: FakeBatchModel) -> None:
    left_by_a_launch(tmp_path)
    settings = tmp_path / "out.jsonl.part-1-of-2.settings.json"
    recorded = json.loads(settings.read_text())
    answered, asked = str(id_key(0, "question 0")), str(id_key(1, "question 1"))
    settings.write_text(json.dumps(recorded | {"suspects": {answered: 1, asked: 1}}))
    (tmp_path / "out.jsonl.part-0-of-2.settings.json").write_text(json.dumps(recorded | {"suspects": {asked: 2}}))
    out = Parts(tmp_path / "out.jsonl", World())
    assert out.suspects() == {answered: 1, asked: 2}
    with Log(tmp_path / "out.jsonl", resume=True) as log:
        log.begin(recorded)
        out.merge(log, Keys(), [])
    assert files(tmp_path) == {"", ".settings.json"} and out.suspects() == {asked: 2}
    fake.asked.clear()
    assert batch(tmp_path, "--resume").code == 0
    assert [one.question_id for one in fake.asked] == [3, 5, 1] and out.suspects() == {}  # suspects come last
