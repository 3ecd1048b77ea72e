"""`--report`, and how numbers and reasons are summed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adafv.records import Answer, Failure
from adafv_cli.progress import Progress
from adafv_cli.rendering import summary, units
from adafv_cli.rendering.tally import Tally, distribution, quantile
from tests.batch_fakes import FakeBatchModel, asking, install, questions
from tests.cli_fakes import ANSWER, FakeStream, adafv


def test_the_report_says_how_and_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeBatchModel())
    path = tmp_path / "report.json"
    lines = [asking(1), asking(2, "gone.png"), asking(3)]
    assert adafv("batch", questions(tmp_path, *lines), "--report", str(path), "--keep", "64").code == 1
    report = json.loads(path.read_text())
    assert report["outcome"] == "finished"
    assert (report["settings"]["keep"], report["settings"]["batch_size"]) == ("64", "auto")
    assert set(report["versions"]) == {"python", "torch", "transformers", "accelerate"}
    assert report["versions"]["torch"].startswith("2.")
    assert report["model"]["devices"] == "cpu"
    totals = report["totals"]
    assert (totals["lines"], totals["answered"], totals["failed"]) == (3, 2, 1)
    assert totals["tokens"]["visual"] == 1152 and totals["flops"]["total"] == 2 * 2_976_209_000_000
    assert (totals["images_encoded"], totals["cache_hits"]) == (2, 1)
    latency = report["distributions"]["latency_total_s"]
    assert latency["min"] == latency["p50"] == latency["max"] == 0.0383
    assert [failed["question_id"] for failed in report["failed"]] == [2]
    assert list(tmp_path.glob(".report*")) == []


def test_a_report_of_a_run_that_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeBatchModel())
    path = tmp_path / "report.json"
    lines = [asking(1), asking(2) | {"text": "explode"}]
    adafv("batch", questions(tmp_path, *lines), "--report", str(path), "--batch-size", "1")
    report = json.loads(path.read_text())
    assert report["outcome"].startswith("failed: the model gave up")
    assert report["totals"]["answered"] == 1


def test_quantiles() -> None:
    values = list(range(1, 101))
    assert [quantile(values, share) for share in (0.01, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    assert quantile([7], 0.05) == quantile([7], 0.95) == 7
    assert distribution([]) is None
    assert (distribution([1, 2, 6]) or {})["mean"] == 3


def failed(number: int, message: str) -> Tally:
    tally = Tally()
    for count in range(number):
        failure = Failure("ImageError", message.format(count), "check the path")
        tally.add(Answer(count, "q", None, "demo", error=failure))
    return tally


def test_reasons_are_grouped_whatever_the_file() -> None:
    tally = failed(15, "/data/pictures/{}.jpg does not exist")
    text = summary.failures(tally).plain
    assert text.count("ImageError") == 1
    assert "15 x ImageError: /data/pictures/0.jpg does not exist, and so on" in text
    assert "ids 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 5 more; check the path" in text


def test_names_from_the_input_cannot_talk_to_the_terminal() -> None:
    assert "\x1b" not in summary.failures(failed(1, "\x1b[2J{}")).plain


def test_amounts() -> None:
    assert units.part_of(2_910, 8_640, units.DECIMAL, "FLOPs") == "2.91 of 8.64 KFLOPs"
    seconds = [0.0123, 1.5, 45.25, 100, 3599, 7500]
    expected = ["12.3 ms", "1.50 s", "45.2 s", "1 min 40 s", "59 min 59 s", "2 h 05 min"]
    assert [units.duration(value) for value in seconds] == expected
    assert (units.percent(1, 3), units.percent(1, 1000), units.percent(0, 0)) == ("33%", "0.1%", "100%")


@pytest.mark.parametrize("total", [1000, None])
def test_plain_progress_is_a_line_now_and_then(total: int | None) -> None:
    from adafv_cli.console import Streams

    now = 0.0
    tally = Tally(clock=lambda: now)
    stream = FakeStream()
    with Progress(Streams(FakeStream(), FakeStream(), stream), tally, total, crowded=False) as progress:
        for _ in range(1000):
            now += 0.1
            tally.add(ANSWER)
            progress.advance()
    lines = stream.written.splitlines()
    if total is None:
        assert lines[0] == "300 lines, 10.0/s, 75% of visual tokens saved"
        assert len(lines) == 3
    else:
        assert lines[0] == "100 of 1000 (10%), 10.0/s, 90.0 s left, 75% of visual tokens saved"
        assert lines[-1] == "1000 of 1000 (100%), 10.0/s, 75% of visual tokens saved"
        assert len(lines) == 10
