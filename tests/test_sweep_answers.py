"""`adafv sweep`: what comes out, in a pipe, at a terminal, as an object; and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adafv.records import Question
from adafv.settings import RunSettings
from tests.batch_fakes import FakeBatchModel, answers, install, questions
from tests.cli_fakes import Result, adafv


class Forgetful(FakeBatchModel):
    """Knows the answer, unless the budget is below what the question needs."""

    def says(self, question: Question, run: RunSettings) -> str:
        kept = run.budget.tokens(100)
        needed = int(question.metadata.get("needs", 0)) * (2 if run.pruner == "saliency" else 1)
        known = question.metadata.get("answer", "a cat")
        return str(known) if kept >= needed else "no idea"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    found = install(monkeypatch, Forgetful())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return found


def asking(number: int, **more: Any) -> dict[str, Any]:
    return {"question_id": number, "image": f"{'ab'[number % 2]}.png", "text": f"question {number}"} | more


def needing(*needs: int) -> list[dict[str, Any]]:
    return [asking(number, answer=f"thing {number}", needs=need) for number, need in enumerate(needs)]


def sweep(folder: Path, lines: Sequence[object], *flags: str, **streams: Any) -> Result:
    return adafv("sweep", questions(folder, *lines), *flags, **streams)


def settings(points: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(point["pruner"], point["keep"]) for point in points]


def test_a_pipe_gets_a_line_for_each_point(tmp_path: Path, model: FakeBatchModel) -> None:
    done = sweep(tmp_path, needing(0, 10, 20, 60), "--keep", "10%,50%", "--pruner", "adafv,saliency")
    points = answers(done.stdout)
    assert done.code == 0
    assert settings(points) == [("none", "all"), ("adafv", "10%"), ("adafv", "50%"),
                                ("saliency", "10%"), ("saliency", "50%")]  # fmt: skip
    assert [point["accuracy"]["value"] for point in points] == [1.0, 0.5, 0.75, 0.25, 0.75]
    assert [point["agreement"]["value"] for point in points] == [1.0, 0.5, 0.75, 0.25, 0.75]
    assert points[1]["difference"]["value"] == -0.5
    assert not any(point["partial"] or point["recommended"] for point in points)
    assert "recommended: none; no budget is surely within 1 point of the unpruned; nearest: adafv at 50%" in done.stderr
    assert "answers        20 in" in done.stderr and "under 5 settings" in done.stderr
    assert (
        "note: questions about 2 images: the intervals are rough; a recommendation within 1 point needs 439, "
        in done.stderr
    )
    assert "4 settings in 2 series compared on 2 images: with that allowed for, at worst -" in done.stderr


def test_the_recommended_point_says_so(tmp_path: Path, model: FakeBatchModel) -> None:
    done = sweep(tmp_path, needing(0, 10, 20), "--keep", "5%,25%,50%")
    assert not any(point["recommended"] for point in answers(done.stdout))
    assert "recommended: none" in done.stderr  # three questions cannot tell, though 25% changed none of them
    done = sweep(tmp_path, needing(0, 10, 20), "--keep", "5%,25%,50%", "--tolerance", "100")
    assert [point["recommended"] for point in answers(done.stdout)] == [False, True, False, False]
    assert "recommended: adafv at 5%: 33.3 (" in done.stderr and "of the unpruned 100.0, within 100\n" in done.stderr


def test_defaults_and_every_pruner(tmp_path: Path, model: FakeBatchModel) -> None:
    from adafv import pruners

    points = answers(sweep(tmp_path, needing(0)).stdout)
    assert settings(points) == [("none", "all"), *(("adafv", keep) for keep in ("5%", "10%", "25%", "50%"))]
    points = answers(sweep(tmp_path, needing(0), "--pruner", "all", "--keep", "8,all").stdout)
    assert [point["pruner"] for point in points] == ["none", *(name for name in pruners.names() if name != "none")]


def test_the_environment_does_not_shrink_a_sweep(
    tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAFV_KEEP", "128")
    assert len(answers(sweep(tmp_path, needing(0)).stdout)) == 5


def test_standard_input(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = Path(questions(tmp_path, *needing(0, 0, 0))).read_bytes()
    done = adafv("sweep", "-", "--image-folder", str(tmp_path), stdin=lines)
    assert done.code == 0 and answers(done.stdout)[0]["questions"] == 3


def test_one_object(tmp_path: Path, model: FakeBatchModel) -> None:
    done = sweep(tmp_path, needing(0, 10), "--keep", "10%", "--tolerance", "100", "--json")
    found = json.loads(done.stdout)
    assert list(found) == ["points", "recommendation", "tolerance", "compared", "partial"]
    assert found["recommendation"] == {"pruner": "adafv", "keep": "10%"}
    assert settings(found["points"]) == [("none", "all"), ("adafv", "10%")]


def test_a_table_at_a_terminal(tmp_path: Path, model: FakeBatchModel) -> None:
    done = sweep(tmp_path, needing(0, 10, 20, 60), "--keep", "10%,50%", "--tolerance", "100", stdout_tty=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "4 questions"
    assert max(map(len, lines)) <= 80
    header = next(line for line in lines if "pruner" in line)
    for title in ("keep", "accuracy %", "agrees %", "tokens", "FLOPs", "TTFT ms", "q/s"):
        assert title in header
    assert any(line.startswith("*  adafv") and "10%" in line and "50.0 " in line for line in lines)
    assert "recommended: adafv at 10%" in done.stdout
    assert "recommended" not in done.stderr


def test_intervals_are_written_out_where_there_is_room(
    tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    done = sweep(tmp_path, needing(0, 10, 20, 60), "--keep", "10%", stdout_tty=True)
    assert re.search(r"50\.0 \(\d+\.\d to \d+\.\d\)", done.stdout) and "to unpruned" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_no_colour_when_asked(tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    done = sweep(tmp_path, needing(0), stdout_tty=True)
    assert "\x1b" not in done.stdout + done.stderr
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    done = sweep(tmp_path, needing(0), stdout_tty=True)
    assert "\x1b" in done.stdout and "\x1b" not in done.stderr
    assert "\x1b" not in sweep(tmp_path, needing(0)).stdout


def test_yes_and_no_have_an_f1(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [asking(number, answer="yes" if number % 2 else "no") for number in range(4)]
    points = answers(sweep(tmp_path, lines).stdout)
    assert points[0]["yes_no"]["f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    table = sweep(tmp_path, lines, stdout_tty=True).stdout
    assert " F1 " in table and max(map(len, table.splitlines())) <= 80
    assert answers(sweep(tmp_path, lines, "--metric", "exact").stdout)[0]["yes_no"] is None


def test_without_answers_there_is_agreement(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [asking(number, needs=50 * (number % 2)) for number in range(4)]
    points = answers(sweep(tmp_path, lines, "--keep", "25%").stdout)
    assert points[1]["accuracy"] is None and points[1]["agreement"]["value"] == 0.5
    table = sweep(tmp_path, lines, "--keep", "25%", stdout_tty=True).stdout
    assert "none has an answer to compare with" in table and "accuracy %" not in table


def test_a_mixed_file_says_how_many_lines_count(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [asking(0, answer="x"), asking(1)]
    assert answers(sweep(tmp_path, lines).stdout)[0]["accuracy"]["questions"] == 1
    assert "2 questions, 1 of them with an answer to compare with" in sweep(tmp_path, lines, stdout_tty=True).stdout


def test_quality_by_a_key_of_the_lines(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [asking(n, answer="x", needs=60 * (n % 2), kind=["color", "[bold]count"][n % 2]) for n in range(4)]
    points = answers(sweep(tmp_path, lines, "--by", "kind", "--keep", "25%").stdout)
    groups = points[1]["groups"]
    assert {name: group["accuracy"]["value"] for name, group in groups.items()} == {"[bold]count": 0.0, "color": 1.0}
    table = sweep(tmp_path, lines, "--by", "kind", "--keep", "25%", stdout_tty=True).stdout
    assert "[bold]count" in table and "adafv, %" in table


def test_paired_differences_to_another_pruner(tmp_path: Path, model: FakeBatchModel) -> None:
    flags = ("--keep", "10%,25%", "--pruner", "adafv,saliency")
    points = answers(sweep(tmp_path, needing(0, 10, 20, 60), *flags, "--against", "adafv").stdout)
    found = {(one["pruner"], one["keep"]): one["against"] for one in points if "against" in one}
    assert list(found) == [("saliency", "10%"), ("saliency", "25%")]
    assert [(one["keep"], one["value"]) for one in found.values()] == [("10%", -0.25), ("25%", -0.25)]
    one = answers(sweep(tmp_path, needing(0, 10, 20, 60), *flags, "--against", "saliency@10%").stdout)
    assert [point["against"]["value"] for point in one if "against" in point] == [0.25, 0.5, 0.25]
    table = sweep(tmp_path, needing(0, 10, 20, 60), *flags, "--against", "saliency@10%", stdout_tty=True).stdout
    assert "to saliency@10%" in table and max(map(len, table.splitlines())) <= 80


def test_failures_are_told_once_for_each_question(tmp_path: Path, model: FakeBatchModel) -> None:
    done = sweep(tmp_path, [*needing(0, 0), asking(7) | {"image": "gone.png"}, "broken"], "--keep", "10%")
    assert done.code == 1
    points = answers(done.stdout)
    assert [(point["questions"], point["failed"]) for point in points] == [(2, 2), (2, 2)]
    assert "answers        4, 4 failed in " in done.stderr and "2 questions failed:" in done.stderr
    assert done.stderr.count("gone.png does not exist") == 1


def test_nothing_but_failures(tmp_path: Path, model: FakeBatchModel) -> None:
    done = sweep(tmp_path, [asking(7) | {"image": "gone.png"}], "--plot", str(tmp_path / "c.png"))
    assert (done.code, done.stdout) == (1, "")
    assert not (tmp_path / "c.png").exists()


def test_fail_fast(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [*needing(0, 0), asking(7) | {"image": "gone.png"}, *[asking(n) for n in range(10, 40)]]
    done = sweep(tmp_path, lines, "--fail-fast", "--batch-size", "1")
    assert done.code == 1
    assert {point["partial"] for point in answers(done.stdout)} == {True}


def test_a_report(tmp_path: Path, model: FakeBatchModel) -> None:
    path = tmp_path / "report.json"
    sweep(tmp_path, needing(0, 10), "--keep", "5%,25%", "--tolerance", "100", "--report", str(path))
    report = json.loads(path.read_text())
    assert settings(report["points"]) == [("none", "all"), ("adafv", "5%"), ("adafv", "25%")]
    assert report["recommendation"] == {"pruner": "adafv", "keep": "5%"}
    assert (report["settings"]["keep"], report["totals"]["answered"]) == ("5%,25%", 6)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--keep", "5%,some"], "--keep: 'some' is no budget"),
        (["--keep", "0"], "--keep: 0 keeps no visual token"),
        (["--keep", ","], "--keep: ',' names none"),
        (["--pruner", "adafv,salience"], "did you mean saliency?"),
        (["--metric", "f1"], "--metric: 'f1' is unknown\n  choose from auto, exact, vqa, yes-no"),
        (["--tolerance", "-1"], "--tolerance: -1.0 is not between 0 and 100"),
        (["--tolerance", "nan"], "--tolerance: nan is not between 0 and 100"),
        (
            ["--against", "mmtok"],
            "--against: 'mmtok' is no setting of this sweep, or its only one",
        ),
        (["--against", "adafv@10%", "--keep", "5%"], "--against: 'adafv@10%' is no setting of this sweep"),
        (["--against", "none"], "--against: 'none' is no setting of this sweep"),
        (["--against", "adafv@lots"], "--against: 'adafv@lots': keep: 'lots' is no budget"),
        (["--compare"], "--compare: a sweep always compares"),
        (
            ["--plot", "curve.jpg"],
            "--plot: curve.jpg: a figure is no .jpg\n  give a name that ends in .png, .svg, .pdf",
        ),
        (["--plot", "curve"], "--plot: curve: a figure is no file without an extension"),
        (["--plot", "nowhere/curve.png"], "its folder does not exist"),
        (["--plot", "/proc/curve.png"], "--plot: /proc cannot be written to"),
        (["--resume"], "--resume needs -o FILE"),
        (["--max-new-tokens", "0"], "--max-new-tokens: 0 generates nothing"),
        (["--report", "r.json", "-o", "r.json"], "--report: r.json is used otherwise"),
        (["--plot", "r.png", "-o", "r.png"], "--plot: r.png is used otherwise"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_model_loads(
    tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch, flags: list[str], said: str
) -> None:
    path = questions(tmp_path, *needing(0))
    monkeypatch.chdir(tmp_path)
    done = adafv("sweep", path, *flags)
    assert (done.code, done.stdout, model.loaded) == (2, "", [])
    assert said in done.stderr
    assert not list(tmp_path.glob("[cr]*.*"))
