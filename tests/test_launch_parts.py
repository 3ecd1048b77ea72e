"""What a launch left beside the output: gone on with, replaced, or cleared away, and never another launch's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.batch_fakes import FakeBatchModel, asking, install, questions
from tests.cli_fakes import Result
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
