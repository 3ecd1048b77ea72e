"""`adafv bench`: data on stdout, everything in a file, bad values refused first, Ctrl-C in the middle."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from adafv.bench import suite
from adafv.bench.machine import Machine
from adafv.bench.records import Bench, Row
from adafv.bench.rounds import Speedup, Spread
from adafv.bench.selection import Selection
from adafv_cli.rendering import bench_table
from tests.cli_fakes import adafv

TINY = "bench --geometry tiny --device-map cpu --rounds 1 --max-new-tokens 2 --batch-size 1,2".split()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADAFV_MODEL", "ADAFV_KEEP", "ADAFV_DEVICE_MAP"):
        monkeypatch.delenv(name, raising=False)


def test_a_pipe_gets_a_line_for_each_row_and_files_get_everything(tmp_path: Path) -> None:
    report, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    result = adafv(*TINY, "--suite", "gpu", "--pruner", "adafv,saliency", "--json", str(report), "--plot", str(plot))
    assert result.code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["section"] for row in rows} == {"latency", "pruners", "throughput", "vision"}
    assert not any(row["partial"] for row in rows)
    saved = json.loads(report.read_text())
    assert saved["adafv"] and saved["command"] and saved["settings"]["geometry"] == ["tiny"]
    assert [row["variant"] for row in saved["rows"]] == [row["variant"] for row in rows]
    assert saved["machine"]["matrix_flops"].keys() >= {"float32", "bfloat16"}
    assert "<svg" in plot.read_text()
    again = adafv(*TINY, "--pruner", "saliency", "--keep", "4", "--json", str(report))  # ours, so it may be replaced
    assert again.code == 0 and "saliency 4" in again.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--geometry", "llava-9"), "llava-9"),
        (("--geometry", ","), "names none"),
        (("--suite", "tpu"), "tpu"),
        (("--minutes", "0"), "--minutes: 0"),
        (("--minutes", "nan"), "--minutes: nan"),
        (("--keep", "64,x"), "'x'"),
        (("--keep", "0"), "'0'"),
        (("--batch-size", "-1"), "'-1'"),
        (("--pruner", "adafv,nothing"), "nothing"),
        (("--rounds", "0"), "0"),
        (("--sections", "latency,speed"), "speed"),
        (("--sections", ","), "names none"),
        (("--geometry", "tiny", "-m", "demo"), "contradict"),
        (("--geometry", "tiny", "--device-map", "balanced"), "balanced"),
        (("--json", "nowhere/bench.json"), "nowhere"),
        (("--plot", "bench.jpg"), "bench.jpg"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(args: tuple[str, ...], said: str) -> None:
    result = adafv("bench", *args)
    assert (result.code, result.stdout) == (2, "")
    assert said in result.stderr


def test_only_what_was_asked_for_is_measured(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    result = adafv(*TINY, "--sections", "vision,latency", "--json", str(report))
    assert result.code == 0
    assert list(dict.fromkeys(json.loads(line)["section"] for line in result.stdout.splitlines())) == [
        "latency",
        "vision",
    ]
    assert not json.loads(report.read_text())["unmeasured"]


def test_a_long_note_cuts_no_number() -> None:
    note = "the cheapest at 4 questions an image, not told apart from " + " and ".join(["adafv 64 (select image)"] * 4)
    gains = tuple(Speedup(over, 3.14, 2.44, 3.85, told_apart=True) for over in ("transformers, batch 1", "unpruned"))
    spread = Spread(160.4, 155.2, 165.1)
    row = Row(
        "throughput", "tiny", "adafv 64, batch 8", {"batch_size": 8}, 2, {}, spread, speedups=gains, notes=(note,)
    )
    bench = Bench(Machine("a CPU", 1, None, 1e10, {}, {}), {}, [row])
    file = StringIO()
    console = Console(width=120, file=file)
    console.print(*bench_table.pictures(bench, 120))
    shown = file.getvalue()
    assert (
        "160 (155 to 165)" in shown
        and shown.count("3.14x (2.44 to 3.85)") == 2
        and "\N{HORIZONTAL ELLIPSIS}" not in shown
    )


def test_a_checkpoint_needs_an_image() -> None:
    result = adafv("bench", "-m", "demo")
    assert (result.code, result.stdout) == (4, "")
    assert "no image to ask demo about" in result.stderr


def test_somebody_elses_file_stays(tmp_path: Path) -> None:
    report = tmp_path / "mine.json"
    report.write_text("{}")
    assert adafv("bench", "--geometry", "tiny", "--json", str(report)).code == 2
    assert report.read_text() == "{}"


def test_what_was_measured_before_ctrl_c_is_shown_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Selection, name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Selection, "_choose", interrupted)
    report = tmp_path / "bench.json"
    result = adafv(*TINY, "--json", str(report))
    assert result.code == 130
    assert {json.loads(line)["section"] for line in result.stdout.splitlines()} == {"latency"}
    assert "broke off" in result.stderr
    saved = json.loads(report.read_text())
    assert saved["partial"] and {row["section"] for row in saved["rows"]} == {"latency"}


def test_nothing_to_save_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "run", interrupted)
    report = tmp_path / "bench.json"
    assert adafv(*TINY, "--json", str(report)).code == 130
    assert not report.exists()
