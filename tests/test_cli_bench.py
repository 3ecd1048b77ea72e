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
from adafv.bench.rounds import Rounds, Speedup, Spread
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


def test_a_time_that_suffices_for_nothing_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rounds, "take", lambda *_: None)
    report = tmp_path / "bench.json"
    result = adafv(*TINY, "--sections", "throughput", "--json", str(report))
    assert (result.code, result.stdout) == (2, "")
    assert "nothing was measured (throughput of tiny: not one round was finished in its time)" in result.stderr
    assert "--minutes" in result.stderr and not report.exists()


def test_only_what_was_asked_for_is_measured(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    result = adafv(*TINY, "--sections", "vision,latency", "--json", str(report))
    assert result.code == 0
    assert list(dict.fromkeys(json.loads(line)["section"] for line in result.stdout.splitlines())) == [
        "latency",
        "vision",
    ]
    assert not json.loads(report.read_text())["unmeasured"]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_width_cuts_a_number_or_loses_a_note(width: int) -> None:
    others = " and ".join(f"adafv 64 (select {one})" for one in ("image", "split"))
    overs = ("transformers, batch 1", "transformers, batch 16", "unpruned, batch 16")
    spread, taken = (
        Spread(160.4, 155.2, 165.1),
        dict.fromkeys(("question", "vision", "prefill", "decode", "rest"), Spread(1, 1, 1)),
    )
    rows = [
        Row(
            "throughput", "tiny", name, {"batch_size": 16}, 2, taken, spread, flops_ratio=4, attained=0.5,
            speedups=tuple(Speedup(over, 3.14, 12.44, 13.85, told_apart=True) for over in overs),
            bound_s={"question": 1e-4}, peak_bytes=2**34, notes=(f"the cheapest, not told apart from {others}",),
        )
        for name in ("unpruned, each prefilled, batch 16", "adafv 64 (select image), batch 16")
    ]  # fmt: skip
    file = StringIO()
    Console(width=width, file=file).print(
        *bench_table.pictures(Bench(Machine("a CPU", 1, None, 1e10, {}, {}), {}, rows), width)
    )
    shown = " ".join(file.getvalue().split())  # the last sentence may have any number of lines
    assert shown.count("(155 to 165)") == 2
    assert shown.count("3.14x") == 2 * 3 + 1  # and once more in the last sentence
    assert shown.count("(12.4 to 13.8)") == 2 * 3 + 1
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert shown.split().count("cheapest,") == 2
    titles = {"vision", "prefill", "decode", "rest", "bound", "reached"}
    assert titles <= set(shown.split()) or width < 160


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


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (("latency", "throughput"), "adafv 8, batch 1: first token 2.00x as fast"),
        (("throughput",), "adafv 8, batch 1: questions answered 3.00x as fast"),
        (("pruners",), "nothing pruned was set beside the unpruned model"),
    ],
)
def test_the_last_sentence_is_about_what_was_measured(sections: tuple[str, ...], said: str) -> None:
    gains = {"latency": ("unpruned", 2.0), "throughput": ("unpruned, batch 1", 3.0)}
    rows = []
    for section in sections:
        found = [gains[section]] if section in gains else []
        faster = tuple(Speedup(over, gain, gain, gain, told_apart=True) for over, gain in found)
        share = 0.5 if found else None
        rows.append(Row(section, "tiny", "adafv 8, batch 1", {}, 2, {}, speedups=faster, flops_ratio=4, attained=share))
    bench = Bench(Machine("a CPU", 1, None, 1e10, {}, {}), {}, rows, partial=False)
    assert said in bench_table.sentence(bench).plain
