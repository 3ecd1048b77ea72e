"""`benchmarks/paper.py`: the papers' tables by one command, over files of the demo's questions and a scripted model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adafv.records import Question
from adafv.settings import RunSettings
from benchmarks import paper
from benchmarks.paper_tables import FILES, MODELS, PUBLISHED
from tests import benchmark_forms as forms
from tests.batch_fakes import FakeBatchModel, install
from tests.cli_fakes import adafv


class Scripted(FakeBatchModel):
    """Right, but for what it does not see of the street at 16 tokens."""

    def says(self, question: Question, run: RunSettings) -> str:
        data = question.metadata
        if run.budget.text == "16" and "street" in str(question.image_name):
            return "nothing of the kind"
        return str(data.get("label") or data.get("answer") or data["answers"][0]["answer"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return forms.laid_out(tmp_path / "data")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    install(monkeypatch, Scripted())
    return []


def main(data: Path, ran: list[Sequence[str]], *flags: str, fails: int | None = None) -> int:
    def run(arguments: Sequence[str]) -> int:
        ran.append(arguments)
        return 130 if fails is not None and len(ran) > fails else adafv(*arguments, "-q").code

    out = data.parent / "out"
    return paper.main([str(data), str(out), "--keep", "64,16", "--pruner", "adafv", *flags], run)


def test_interrupted_and_gone_on(data: Path, ran: list[Sequence[str]]) -> None:
    flags = ["--models", "some/model", "--benchmarks", "gqa", "pope", "mme"]
    assert main(data, ran, *flags, fails=5) == 130
    assert main(data, ran, *flags) == 0
    made = json.loads((data.parent / "out" / "paper.json").read_text())
    scores: dict[str, dict[str, float]] = made["models"]["some/model"]["scores"]
    assert scores["unpruned"] == scores["adafv 64"] == {"gqa": 100.0, "mme": 200.0, "pope": 100.0}
    # Of gqa 8 of 64 questions are about the street. What is said of it is no, as MME reads it, in one pair of four.
    street = [one["answer"] for one in forms.yes_no() if one["image"] == "street.png"][:2]
    right = street.count("no")
    wanted = 100 * ((6 + right) / 8 + (3 + (right == 2)) / 4)
    assert scores["adafv 16"]["gqa"] == 87.5 and scores["adafv 16"]["mme"] == pytest.approx(wanted)
    shares = [scores["adafv 16"][name] / scores["unpruned"][name] for name in ("gqa", "mme", "pope")]
    assert made["models"]["some/model"]["relative"]["adafv 16"] == pytest.approx(100 * sum(shares) / 3)
    assert len(made["files"]) == 4 and all(len(digest) == 64 for digest in made["files"].values())
    text = (data.parent / "out" / "paper.md").read_text()
    assert "| unpruned | 100.0 | 200.0 | 100.0 | 100.0 |" in text
    again = [one for one in ran[6:] if "sweep" in one]
    assert all("--resume" in one for one in again[:3])


def test_an_unpruned_model_that_is_not_the_published_one_stops_it(data: Path, ran: list[Sequence[str]]) -> None:
    model = "llava-hf/llava-1.5-7b-hf"
    flags = ["--models", model, "--benchmarks", "gqa", "scienceqa", "vqav2"]
    assert main(data, ran, *flags) == 1
    assert not any("64,16" in one for one in ran)
    text = (data.parent / "out" / "paper.md").read_text()
    assert f"- {model}, gqa, unpruned: 100.0 here, 62.0 published" in text
    assert "| *unpruned, published* | 62.0 | 66.8 |  | |" in text  # of VQAv2 another split was published
    assert main(data, ran, *flags, "--go-on") == 0
    made: dict[str, Any] = json.loads((data.parent / "out" / "paper.json").read_text())
    assert set(made["models"][model]["scores"]) == {"unpruned", "adafv 64", "adafv 16"} and len(made["differs"]) == 2


def test_a_first_look_says_that_it_is_one(
    data: Path, ran: list[Sequence[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "gqa" / "testdev_balanced_questions.json").unlink()
    assert main(data, ran, "--models", "some/model", "--benchmarks", "gqa", "vizwiz", "--limit", "4") == 0
    said = capsys.readouterr().err
    assert "gqa is left out" in said and "no gqa/testdev_balanced_questions.json" in said
    assert "1 tables; 12 answers, at most" in said
    assert "first 4 questions of each benchmark only" in (data.parent / "out" / "paper.md").read_text()


def test_published_figures_have_their_source() -> None:
    known = set(PUBLISHED["sources"])
    for one in PUBLISHED["figures"]:
        assert one["source"] in known and one["model"] in MODELS
        assert set(one) - {"model", "setting", "source"} <= set(FILES)


def test_published_figures_of_pruned_models_stand_beside_ours(data: Path, ran: list[Sequence[str]]) -> None:
    model = "llava-hf/llava-v1.6-vicuna-7b-hf"
    assert main(data, ran, "--models", model, "--benchmarks", "gqa", "--keep", "288", "--go-on") == 0
    rows = (data.parent / "out" / "paper.md").read_text().splitlines()
    of = [row for row in rows if row.startswith("| ")]
    assert [row.split(" |")[0] for row in of] == [
        "| setting", "| *unpruned, published*", "| *unpruned (AdaV), published*", "| *adafv 720, published*",
        "| *adafv 288, published*", "| *adafv 144, published*", "| unpruned", "| adafv 288",
    ]  # fmt: skip
    assert of[4] == "| *adafv 288, published* | 60.65 | |"
