"""A server that dies half-way: exit 3, nothing lost, nothing doubled, and the line that it died of is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv.serving import fleet
from tests.cli_fakes import Result
from tests.cli_fakes import adafv as run_adafv
from tests.completions import Completions
from tests.conftest import noise

LINES, LONG = 40, 5


@dataclass
class Job:
    server: Completions
    folder: Path
    model: str

    @property
    def out(self) -> Path:
        return self.folder / "out.jsonl"

    def run(self, *more: str, served: bool = True) -> Result:
        where = ("--server", self.server.url, "--server-requests", "4") if served else ()
        common = ("-m", self.model, "--dtype", "float32", "--max-new-tokens", "3", "--batch-size", "4", "-q")
        return run_adafv("batch", str(self.folder / "in.jsonl"), "-o", str(self.out), *common, *where, *more)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def suspects(self) -> list[int]:
        found = json.loads(Path(f"{self.out}.settings.json").read_text()).get("suspects", {})
        return sorted(found.values())


@pytest.fixture
def job(llava: adafv.Model, llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.setattr(fleet, "PATIENCE_S", 0.3)
    monkeypatch.setattr(fleet, "BACKOFF_S", 0.01)
    monkeypatch.delenv("ADAFV_SERVER", raising=False)
    noise(60, 60).save(tmp_path / "a.png")
    texts = ["what is it? " * 9 if number == LONG else f"what is {number}?" for number in range(LINES)]
    rows = [{"question_id": number, "image": "a.png", "text": text} for number, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = Completions(llava._checkpoint.model)
    yield Job(server, tmp_path, str(llava_folder))
    server.die()


def poison(prompt: torch.Tensor) -> str | None:
    return "die" if len(prompt) > 40 else None


def test_a_killed_server_loses_and_doubles_nothing(job: Job) -> None:
    job.server.fault = lambda prompt: "die" if len(job.server.asked) == 17 else None
    ended = job.run()
    assert ended.code == 3 and "then go on with --resume" in ended.stderr
    assert "--resume" in ended.stderr and len(job.lines()) >= 12
    assert all(line["error"] is None for line in job.lines())
    assert set(job.suspects()) == {1} and 1 <= len(job.suspects()) <= 4
    job.server.fault = None
    job.server.start()
    assert job.run("--resume").code == 0
    assert sorted(line["question_id"] for line in job.lines()) == list(range(LINES))
    assert all(line["error"] is None for line in job.lines()) and job.suspects() == []


def test_suspects_are_sent_last_and_alone(job: Job) -> None:
    job.server.fault = poison
    assert job.run().code == 3
    suspects, before = len(job.suspects()), len(job.lines())
    job.server.fault = None
    job.server.start()
    job.server.asked.clear()
    sizes: list[int] = []
    job.server.fault = lambda prompt: sizes.append(job.server.in_flight) or None  # type: ignore[func-returns-value]
    assert job.run("--resume").code == 0
    assert len(sizes) == LINES - before and sizes[-suspects:] == [1] * suspects


def test_poison_becomes_its_lines_error_after_the_second_death(job: Job) -> None:
    job.server.fault = poison
    assert job.run().code == 3
    job.server.start()
    ended = job.run("--resume")  # it dies of it once more, alone and behind all others
    failed = [line for line in job.lines() if line["error"]]
    assert [line["question_id"] for line in failed] in ([LONG], [])
    assert ended.code in (1, 3) and job.suspects()[-1] == 2
    job.server.start()
    ended = job.run("--resume")  # and is not sent a third time
    assert ended.code == 1 and job.server.alive
    failed = [line for line in job.lines() if line["error"]]
    assert [(line["question_id"], line["error"]["type"]) for line in failed] == [(LONG, "PoisonError")]
    assert sorted(line["question_id"] for line in job.lines()) == list(range(LINES))
    ended = job.run("--resume")
    assert ended.code == 1 and job.server.alive and job.suspects() == [2]


def test_a_first_line_that_kills_the_server_is_remembered_though_nothing_was_answered(job: Job) -> None:
    job.server.fault = lambda prompt: "die"
    questions = job.folder / "in.jsonl"
    questions.write_text(questions.read_text().splitlines(True)[0])
    assert job.run().code == 3
    assert job.lines() == [] and job.suspects() == [1]
    for _ in range(2):  # it dies once more, and is not sent a third time
        job.server.start()
        assert job.run("--resume").code == 1 and job.suspects() == [2]
        assert [line["error"]["type"] for line in job.lines()] == ["PoisonError"]
    assert job.server.alive and len(job.server.asked) == 2
    assert job.run("--force").code == 3 and job.suspects() == [1]  # it forgets what was


def test_engines_are_not_mixed(job: Job) -> None:
    assert job.run("--shard", "1/1").code == 0
    refused = job.run("--resume", served=False)
    assert refused.code == 2 and "engine: server in the file, transformers asked" in refused.stderr
    Path(f"{job.out}.settings.json").unlink()  # the answers themselves say it, too
    assert "engine: server in the file" in job.run("--resume", served=False).stderr
    assert job.run("--force", served=False).code == 0
    assert "engine: transformers in the file, server asked" in job.run("--resume").stderr


@pytest.mark.parametrize(
    "flags,said",
    [
        (("--positions", "original"), "--positions original: a server numbers"),
        (("--quantize", "int8"), "--quantize: int8 is of the language model"),
        (("--attention", "eager"), "--attention: eager is of the language model"),
        (("--server", "http://example.org:8000"), "--server-insecure"),
        (("--server", "https://user:secret@example.org"), "ADAFV_SERVER_KEY"),
        (("--server", "http://127.0.0.1:80/path"), "more than host and port"),
        (("--server", "localhost:8000"), "is no web address"),
        (("--server", ","), "names none"),
        (("--server", "http://127.0.0.1:99999"), "out of range"),
        (("--server-requests", "0"), "--server-requests: 0 asks nothing"),
        (("--server-timeout", "0"), "--server-timeout: 0.0 s is no time"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(job: Job, flags: tuple[str, ...], said: str) -> None:
    refused = job.run(*flags)
    assert refused.code == 2 and said in refused.stderr and "secret" not in refused.stderr
    assert not job.out.exists()


def test_a_sweep_over_positions_is_refused(job: Job) -> None:
    lines, positions = str(job.folder / "in.jsonl"), "compact,original"
    refused = run_adafv("sweep", lines, "--positions", positions, "-m", job.model, "--server", job.server.url)
    assert refused.code == 2 and "--positions original: a server numbers" in refused.stderr


def test_compare_is_refused(job: Job) -> None:
    refused = run_adafv("ask", str(job.folder / "a.png"), "what?", "--compare", "--server", job.server.url)
    assert refused.code == 2 and "--compare: a server's queue" in refused.stderr


def test_the_server_may_be_named_by_the_environment(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAFV_SERVER", job.server.url)
    assert job.run(served=False).code == 0 and len(job.server.asked) == LINES
