"""The report, to the letter."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from adafv.records import Comparison
from adafv.settings import RunSettings
from adafv.spent import TokenCounts
from adafv_cli.rendering import report
from tests.cli_fakes import ANSWER, COMPARISON, FAILURE, FakeModel, adafv, install, picture

SINGLE = """\
visual tokens  144 of 576 kept (25%)
               80 by saliency, 70 by similarity, 6 of them by both
KV cache       94.0 of 310 MiB unpruned (30%)
compute        2.98 of 8.64 TFLOPs unpruned (34%)
               2 per multiply-accumulate; text, vision, projector, scoring,
               LM head and decode included
latency        preprocess   vision    score    prune  prefill   decode
           ms         3.0     18.2      0.4      0.6     12.0      4.1
               TTFT 31.2 ms   TPOT 4.10 ms   total 38.3 ms"""

DETAILS = """\
visual tokens  144 of 576 kept (25%)
               80 by saliency, 70 by similarity, 6 of them by both
KV cache       94.0 of 310 MiB unpruned (30%)
compute        2.98 of 8.64 TFLOPs unpruned (34%)
               2 per multiply-accumulate; text, vision, projector, scoring,
               LM head and decode included
latency        preprocess   vision    score    prune  prefill   decode
           ms         3.0     18.2      0.4      0.6     12.0      4.1
        FLOPs           -    373 G   9.00 M        -   2.59 T   13.0 G
               TTFT 31.2 ms   TPOT 4.10 ms   total 38.3 ms
other tokens   42 text, 2 generated (stop); 1 crop
peak memory    14.0 GiB on the device
unpruned       agrees: red
               TTFT   31.2 ms against 100 ms, speed-up 3.21x
               total  38.3 ms against 120 ms, speed-up 3.13x"""

SEVERAL = """\
visual tokens  144 of 576 kept (25%); the image is encoded once, with question 1
   saliency  similarity  both  TTFT  TPOT  total  FLOPs  KV cache
1        80          70     6  31.2   4.1   38.3    34%       30%
2    failed
3         -           -     -  31.2     -   38.3    34%       30%
times in ms; FLOPs and KV cache in % of unpruned
FLOPs: 2 per multiply-accumulate; text, vision, projector, scoring,
       LM head and decode included"""

COMPARED = """\
visual tokens  144 of 576 kept (25%); the image is encoded once, with question 1
   saliency  similarity  both  TTFT  TPOT  total  FLOPs  speed-up  agrees
1        80          70     6  31.2   4.1   38.3    34%     3.13x     yes
2        80          70     6  31.2   4.1   38.3    34%     0.90x      no
times in ms; FLOPs in % of unpruned
FLOPs: 2 per multiply-accumulate; text, vision, projector, scoring,
       LM head and decode included"""

BARS = """\
visual tokens  144 of 576 kept                    25% ━━━━━━━━━━━━━━━━━━━━
               80 by saliency, 70 by similarity, 6 of them by both
KV cache       94.0 of 310 MiB unpruned           30% ━━━━━━━━━━━━━━━━━━━━
compute        2.98 of 8.64 TFLOPs unpruned       34% ━━━━━━━━━━━━━━━━━━━━"""

FAILED = replace(ANSWER, text=None, error=FAILURE, tokens=None, latency_s=None, flops=None, memory_bytes=None)


def test_one_answer() -> None:
    assert report.single(ANSWER).plain == SINGLE


def test_details_and_comparison() -> None:
    memory = ANSWER.memory_bytes
    assert memory is not None
    answer = replace(ANSWER, compare=COMPARISON, memory_bytes=replace(memory, peak=15_032_385_536))
    assert report.single(answer, details=True).plain == DETAILS


def test_bars() -> None:
    assert report.single(ANSWER, bars=True).plain.startswith(BARS)


def test_several_answers() -> None:
    latency = ANSWER.latency_s
    assert latency is not None
    uniform = replace(
        ANSWER, tokens=TokenCounts(576, 144, None, None, None, 42, 1, 1), latency_s=replace(latency, tpot=None)
    )
    assert report.several([ANSWER, FAILED, uniform]).plain == SEVERAL


def test_several_compared() -> None:
    slower = Comparison("blue", False, 0.02, 0.0345, 0.64, 0.9)
    answers = [replace(ANSWER, compare=COMPARISON), replace(ANSWER, compare=slower)]
    assert report.several(answers).plain == COMPARED


def test_nothing_is_wider_than_80_columns_or_more_than_ascii() -> None:
    assert ANSWER.latency_s is not None
    hours = replace(ANSWER.latency_s, preprocess=123.4, vision=12345.6, total=54321.0, ttft=12345.6, tpot=99.0)
    tokens = TokenCounts(2880, 720, 400, 350, 30, 1000, 1024, 5)
    large = replace(ANSWER, latency_s=hours, tokens=tokens, compare=COMPARISON)
    for text in (SINGLE, DETAILS, SEVERAL, COMPARED, report.single(large, details=True).plain):
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 80
    assert "720 of 2880 in 5 crops kept (25%)" in report.single(large).plain
    assert "12345.6" in report.single(large).plain


def test_a_pruner_without_a_split_is_named() -> None:
    tokens = TokenCounts(576, 144, None, None, None, 42, 2, 1)
    assert (
        "\n               chosen by uniform\n" in report.single(replace(ANSWER, pruner="uniform", tokens=tokens)).plain
    )


def test_settings() -> None:
    lines = report.settings({"model": "demo", "devices": "cpu"}, RunSettings(system="be brief")).plain.splitlines()
    assert lines[:4] == ["model          demo", "devices        cpu", "keep           25%", "pruner         adafv"]
    assert "system         be brief" in lines
    assert "compare        no" in lines


def test_a_pipe_gets_the_golden_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel())
    image = picture(tmp_path / "a.png", scene=True)
    for encoding in ("utf-8", "ascii"):
        assert adafv("ask", image, "q", encoding=encoding).stderr == SINGLE + "\n"


def test_colour_draws_the_same_text() -> None:
    console = Console(file=StringIO(), color_system="truecolor", force_terminal=True, width=80)
    with console.capture() as capture:
        console.print(report.single(ANSWER, bars=True), soft_wrap=True)
    assert "\x1b[" in capture.get()
    assert "━" in capture.get()
