"""Several processes under a launcher: each its share, one output in the end, and a process that dies costs nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from adafv.errors import DeviceError
from adafv.loading import devices
from adafv_cli.exits import UsageError
from adafv_cli.work.shard import Shard
from adafv_cli.work.world import World
from tests.batch_fakes import asking, questions
from tests.batch_ranks import PATIENCE_S, Rank
from tests.cli_fakes import adafv as run_adafv
from tests.cli_fakes import picture

ROOT = Path(__file__).parent.parent
LINES = 40


def rank_of(rank: int, size: int, launch: str = "a") -> dict[str, str]:
    """What torchrun puts into the environment."""
    said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    return {name: str(value) for name, value in said.items()} | {"TORCHELASTIC_RUN_ID": launch}


def job(folder: Path, missing: int | None = None) -> list[str]:
    """Arguments of a batch with as many images as lines; the image of line `missing` is not there."""
    for number in range(LINES):
        picture(folder / f"{number}.png")
    lines = [asking(number, f"{number}.png" if number != missing else "gone.png") for number in range(LINES)]
    path = questions(folder, *lines)
    return ["batch", path, "-o", str(folder / "out.jsonl"), "--batch-size", "2", "--device-map", "cpu", "-q"]


def start(folder: Path, args: list[str], environment: dict[str, str] | None = None, step_s: float = 0.0) -> Rank:
    """A process of its own; alone, where nothing is said of a launch."""
    environment = environment or {}
    return Rank(args, environment, folder / f"said-{environment.get('RANK', 0)}", step_s)


def launch(folder: Path, args: list[str], size: int, name: str = "a") -> list[int]:
    """The exit codes of a whole launch."""
    ranks = [start(folder, args, rank_of(rank, size, name)) for rank in range(size)]
    return [rank.wait() for rank in ranks]


def ids(folder: Path) -> list[int]:
    return [json.loads(line)["question_id"] for line in (folder / "out.jsonl").read_text().splitlines()]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("out.jsonl")}


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    args = job(tmp_path)
    assert start(tmp_path, args).wait() == 0
    alone = (tmp_path / "out.jsonl").read_bytes()
    assert launch(tmp_path, [*args, "--force"], 2) == [0, 0]
    assert (tmp_path / "out.jsonl").read_bytes() == alone
    assert files(tmp_path) == {"out.jsonl", "out.jsonl.settings.json"}
    assert start(tmp_path, [*args, "--resume"]).wait() == 0
    assert (tmp_path / "out.jsonl").read_bytes() == alone


def begun(folder: Path, rank: int) -> Path:
    """Wait until a process of two has written a line into its part."""
    part, until = folder / f"out.jsonl.part-{rank}-of-2", time.monotonic() + PATIENCE_S
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < until
        time.sleep(0.002)
    return part


def killed(folder: Path, args: list[str]) -> None:
    """A launch of two whose second process is killed half-way; the launcher then ends the first."""
    ranks = [start(folder, args, rank_of(rank, 2, "killed"), step_s=0.5) for rank in range(2)]
    parts = {begun(folder, rank).name for rank in range(2)}
    ranks[1].process.kill()
    ranks[0].process.terminate()
    assert ranks[1].wait() == -signal.SIGKILL and ranks[0].wait() in (130, -signal.SIGTERM)
    assert parts <= files(folder)


@pytest.mark.parametrize("size", [1, 3])
def test_a_process_that_dies_costs_nothing(tmp_path: Path, size: int) -> None:
    args = job(tmp_path)
    killed(tmp_path, args)
    before = sum(len(path.read_bytes().splitlines()) for path in tmp_path.glob("out.jsonl.part-?-of-?"))
    assert 2 <= before < LINES
    if size == 1:
        refused = start(tmp_path, args)
        assert refused.wait() == 2 and "has parts of a run that did not end" in refused.said
        assert start(tmp_path, [*args, "--resume"]).wait() == 0
        assert sorted(ids(tmp_path)) == list(range(LINES))
    else:
        assert launch(tmp_path, [*args, "--resume"], size, "again") == [0] * size
        assert ids(tmp_path) == list(range(LINES))
    assert files(tmp_path) == {"out.jsonl", "out.jsonl.settings.json"}


def test_parts_of_other_settings_are_refused_and_force_replaces_them(tmp_path: Path) -> None:
    args = job(tmp_path)
    killed(tmp_path, args)
    refused = start(tmp_path, [*args, "--resume", "--keep", "7"])
    assert refused.wait() == 2 and "keep: 25% in the file, 7 asked" in refused.said
    assert start(tmp_path, [*args, "--force", "--keep", "7"]).wait() == 0
    assert files(tmp_path) == {"out.jsonl", "out.jsonl.settings.json"} and ids(tmp_path) == list(range(LINES))


def test_a_merge_that_was_killed_is_done_again(tmp_path: Path) -> None:
    args = job(tmp_path)
    assert launch(tmp_path, args, 2) == [0, 0]
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl.part-1-of-2").write_bytes(b"".join(whole.splitlines(True)[::2]) + b'{"question_id": 7')
    assert launch(tmp_path, [*args, "--resume"], 2, "b") == [0, 0]
    assert (tmp_path / "out.jsonl").read_bytes() == whole and len(files(tmp_path)) == 2


def test_only_the_first_process_says_of_failed_lines(tmp_path: Path) -> None:
    args = job(tmp_path, missing=1)
    codes = launch(tmp_path, args, 2)
    assert codes == [1, 0]  # whoever had it: a launcher ends all others when one fails
    assert ids(tmp_path) == list(range(LINES))
    (tmp_path / "gone.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert launch(tmp_path, [*args, "--resume"], 2, "b") == [0, 0]
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in found] == list(range(LINES)) and not any(line["error"] for line in found)


def test_torchrun_itself(tmp_path: Path) -> None:
    args = job(tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tests.batch_fakes"]
    done = subprocess.run([*torchrun, *args], check=False, cwd=ROOT, timeout=240, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert ids(tmp_path) == list(range(LINES)) and len(files(tmp_path)) == 2


@pytest.mark.parametrize(
    "environment,said",
    [
        ({"MASTER_PORT": "29500", "ACCELERATE_MIXED_PRECISION": "no"}, "asked for several processes and started one"),
        (rank_of(0, 4) | {"LOCAL_WORLD_SIZE": "2"}, "on several machines"),
        (rank_of(5, 4), "RANK 5 of WORLD_SIZE 4"),
        (rank_of(0, 4) | {"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
    ],
)
def test_a_world_that_is_none_is_an_error(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        World.of(environment)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, rank_of(0, 1)])
def test_a_world_of_one_process_is_none(environment: dict[str, str]) -> None:
    assert World.of(environment) == World()


@pytest.mark.parametrize(
    "more,said",
    [
        ([], "several processes write no stdout"),
        (["-o", "out.jsonl", "--report", "r.json"], "no process has seen all answers"),
    ],
)
def test_what_several_processes_cannot_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in rank_of(0, 2).items():
        monkeypatch.setenv(name, value)
    asked = questions(tmp_path, asking(0))
    refused = run_adafv("batch", asked, *more)
    assert refused.code == 2 and said in refused.stderr
    refused = run_adafv("sweep", asked, *more)
    assert refused.code == 2 and "a sweep compares in one process" in refused.stderr


def test_shares_are_disjoint_and_complete_within_any_shard() -> None:
    for shard in (Shard(), Shard(2, 3)):
        for key in range(100):
            line: Any = type("Line", (), {"image_key": key})
            holds = [World(rank, 4).share(shard).holds(line) for rank in range(4)]
            assert sum(holds) == shard.holds(line)


@pytest.mark.parametrize("kind,count,found", [("cuda", 4, "cuda:2"), ("cuda", 3, "cuda:2"), (None, 0, "cpu")])
def test_each_process_has_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int, found: str
) -> None:
    monkeypatch.setattr(devices, "accelerator", lambda: kind)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    assert devices.device_of(2, 3) == found
    if kind:
        with pytest.raises(DeviceError, match=f"5 processes were started, and there are {count} cuda"):
            devices.device_of(2, 5)
