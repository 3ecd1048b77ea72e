"""Nothing that comes from a model, a file or the command line can drive a terminal; pipes get bytes as they are."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
import threading
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adafv.errors import CheckpointError
from adafv.records import Failure, Question
from adafv.settings import RunSettings
from adafv_cli.terminal import one_line, visible
from tests import batch_fakes, tiny
from tests.batch_fakes import FakeBatchModel, asking, questions
from tests.cli_fakes import ANSWER, COMPARISON, FakeModel, Result, adafv, install, picture
from tests.test_cli_streams import ENVIRONMENT, HANGS_S, start
from tests.test_show_cli import QUESTION, Explaining, explanation

# Colours, a title, the clipboard (OSC 52), erasing in 7 and 8 bits, a bell, a line drawn over, text turned round
# and hidden.
EVIL = "a\x1b[31mb\x1b]0;title\x07c\x1b]52;c;ZXZpbA==\x1b\\\\d\x9b2Je\x07f\rg\u202eh\u2066i\u200bj\U000e0041k\x7fl"
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\r\n|\r(?=\x1b\[)")  # rich: colour, cursor, lines


def harmless(shown: str) -> bool:
    """Whether there is nothing in it that a terminal obeys, or hides, but what rich writes."""
    return all(letter.isprintable() or letter == "\n" for letter in OURS.sub("", shown))


def test_every_character_that_is_obeyed_or_hides_is_written_out() -> None:
    arabic_numbers = set(map(chr, (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)))
    for letter in map(chr, range(0x110000)):
        if unicodedata.category(letter) == "Cn":
            continue
        bad = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in arabic_numbers
        assert (one_line(letter) != letter) == bad, hex(ord(letter))
        assert (visible(letter) != letter) == (bad and letter not in "\n\t\u200c\u200d"), hex(ord(letter))
        if bad:
            assert one_line(letter).isascii() and json.loads(f'"{one_line(letter)}"') == letter


@pytest.mark.parametrize(
    "text",
    ["plain", "grün 绿", "two\nlines\tand a tab", "\U0001f469\u200d\U0001f4bb \u0645\u06cc\u200c\u062e\u0648", ""],
)
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


def test_lines_of_windows_are_lines() -> None:
    assert visible("a\r\nb") == "a\nb"


def evil_model() -> FakeModel:
    answer = replace(ANSWER, text=f"{EVIL}\nsecond line", compare=replace(COMPARISON, text=EVIL, agrees=False))
    failed = replace(ANSWER, text=None, error=Failure("InputError", EVIL, EVIL))
    return FakeModel([answer, failed], model_id=EVIL)


def checked(done: Result, *codes: int) -> str:
    assert done.code in codes, done.stderr
    assert harmless(done.stdout) and harmless(done.stderr), (done.stdout, done.stderr)
    assert "]52;c;ZXZpbA==" in done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("flags", [(), ("-v", "--compare"), ("-vv",), ("--json",)])
def test_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]) -> None:
    install(monkeypatch, evil_model())
    image = picture(tmp_path / "a.png", scene=True)
    shown = checked(adafv("ask", image, "q", *flags, tty=True, stdout_tty=True), 0)
    if "--json" in flags:
        assert json.loads(shown)["text"] == f"{EVIL}\nsecond line"
    else:
        assert shown.endswith("\nsecond line\n")
    checked(adafv("ask", image, EVIL, EVIL, *flags, tty=True, stdout_tty=True), 1)
    assert adafv("ask", image, "q").stdout == f"{EVIL}\nsecond line\n"  # a pipe


def test_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Explaining()
    install(monkeypatch, model)
    image, out = picture(tmp_path / "a.png", scene=True), tmp_path / f"{EVIL}.png".replace("/", "")
    evil = replace(ANSWER, text=EVIL)
    monkeypatch.setattr(model, "explain", lambda source, asked, run: replace(explanation(source, asked), answer=evil))
    for flags in ((), ("--json",)):
        checked(adafv("show", image, QUESTION, "-o", str(out), "--dpi", "60", *flags, tty=True, stdout_tty=True), 0)
    out.write_text("mine")
    checked(adafv("show", image, QUESTION, "-o", str(out), tty=True, stdout_tty=True), 2)


class EvilBatchModel(FakeBatchModel):
    def says(self, question: Question, run: RunSettings) -> str:
        return EVIL


def test_batch_and_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        asking(1) | {"kind": EVIL},
        asking(2, f"{EVIL}.png") | {"question_id": EVIL, "kind": f"{EVIL}\nforged"},
        {"question_id": 3, "image": "a.png", EVIL: EVIL},
    ]
    path = questions(tmp_path, *lines)
    for command, flags in (
        ("batch", ()),
        ("batch", ("-o", str(tmp_path / EVIL.replace("/", "")))),
        ("batch", ("--dry-run",)),
        ("sweep", ("--by", "kind", "--keep", "25%")),
        ("sweep", ("--keep", "25%", "--json")),
        ("sweep", ("--by", EVIL, "--keep", "25%", "-v")),
    ):
        batch_fakes.install(monkeypatch, EvilBatchModel())
        checked(adafv(command, path, *flags, tty=True, stdout_tty=True), 1)
    batch_fakes.install(monkeypatch, EvilBatchModel())
    piped = adafv("batch", path).stdout
    assert [json.loads(line)["text"] for line in piped.splitlines()] == [EVIL, None, None]
    broken = tmp_path / f"{EVIL}.jsonl".replace("/", "")
    broken.write_text("no JSON")
    checked(adafv("batch", str(broken), tty=True, stdout_tty=True), 4)


def test_info(tmp_path: Path) -> None:
    folder = tiny.save_llava(tmp_path / EVIL.replace("/", ""))
    checked(adafv("info", str(folder), tty=True, stdout_tty=True), 0)
    checked(adafv("info", str(folder), "--json", tty=True, stdout_tty=True), 0)
    content = json.loads((folder / "config.json").read_text())
    for key, part in (("model_type", "text_config"), ("torch_dtype", ""), ("model_type", "")):
        config: dict[str, Any] = json.loads(json.dumps(content))
        (config[part] if part else config)[key] = f"{EVIL}\nforged"
        (folder / "config.json").write_text(json.dumps(config))
        done = adafv("info", str(folder), tty=True, stdout_tty=True)
        assert harmless(done.stdout) and harmless(done.stderr) and done.code in (0, 3)


@pytest.mark.parametrize(
    "args",
    [
        (EVIL,), (f"--{EVIL}",), ("ask", f"{EVIL}.png", "q"), ("ask", f"http://{EVIL}", "q"), ("batch", EVIL),
        ("ask", "PHOTO", "q", f"--{EVIL}"),
        *(("ask", "PHOTO", "q", flag, EVIL) for flag in ("--keep", "--pruner", "--seed", "--dtype", "--device-map",
                                                         "--max-memory")),
        ("batch", "LINES", "--shard", EVIL), ("batch", "LINES", "-o", f"{EVIL}/x"),
        ("batch", "LINES", "--image-folder", EVIL), ("batch", "LINES", "--report", f"{EVIL}/x"),
        ("sweep", "LINES", "--metric", EVIL), ("sweep", "LINES", "--plot", EVIL), ("info", "--image", EVIL),
        ("show", "PHOTO", "q", "-o", EVIL), ("info", "-m", EVIL),
    ],
)  # fmt: skip
def test_what_the_command_line_quotes(tmp_path: Path, args: tuple[str, ...]) -> None:
    given = {"PHOTO": picture(tmp_path / "a.png"), "LINES": questions(tmp_path, asking(1))}
    done = adafv(*(given.get(arg, arg) for arg in args), tty=True, stdout_tty=True)
    assert done.code in (2, 3)
    assert harmless(done.stderr) and harmless(done.stdout)
    assert done.stderr.count("\n") <= 3


def test_errors_of_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(tmp_path / "a.png")
    for failure, code in ((CheckpointError(EVIL, EVIL), 3), (ValueError(EVIL), 70)):
        install(monkeypatch, FakeModel(), failure)
        for flags in ((), ("-vv",)):
            checked(adafv("ask", image, "q", *flags, tty=True, stdout_tty=True), code)


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    for flag in ("--keep", "--pruner", "--dtype", "--device-map", "--max-memory", "--seed"):
        done = adafv("ask", image, "q", flag, "x" * 5_000)
        assert done.code == 2 and "xxx..." in done.stderr and len(done.stderr) < 1_500


def test_at_a_terminal(tmp_path: Path) -> None:
    """The whole process, with all its streams at one."""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                seen.append(os.read(ours, 4096))
            except OSError:
                return

    reader = threading.Thread(target=read)
    reader.start()
    name = picture(tmp_path / f"{EVIL}.png".replace("/", ""))
    command = (sys.executable, "-m", "tests.cli_fakes", "ask", name, EVIL, EVIL, "-vv")
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = start(*command, **streams, env=ENVIRONMENT | {"FAKE_TEXT": EVIL, "COLUMNS": "400"})
    os.close(theirs)
    assert process.wait(HANGS_S) == 0
    reader.join()
    os.close(ours)
    shown = b"".join(seen).decode()
    assert harmless(shown) and "]52;c;ZXZpbA==" in shown
