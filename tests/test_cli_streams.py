"""What goes where: pipes, terminals, readers that leave, Ctrl-C. Nearly each test runs a process."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli_fakes import adafv, picture

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if key not in ("FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "ADAFV_MODEL", "ADAFV_KEEP", "ADAFV_DEVICE_MAP")
} | {"TERM": "xterm-256color", "COLUMNS": "80"}
HANGS_S = 600  # long enough on any machine
FAKE = (sys.executable, "-m", "tests.cli_fakes", "ask")
REAL = (sys.executable, "-m", "adafv_cli", "ask")


@pytest.fixture
def image(tmp_path: Path) -> str:
    return picture(tmp_path / "photo.png")


def start(*command: str, **how: object) -> subprocess.Popen[bytes]:
    """Start a process for which Ctrl-C means what it does at a terminal, also where it is ignored here."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored would stay so in the process
    try:
        return subprocess.Popen(command, cwd=ROOT, **(streams | how))  # type: ignore[call-overload, no-any-return]
    finally:
        signal.signal(signal.SIGINT, before)


def at_a_terminal(*command: str, **environment: str) -> tuple[int, str, str]:
    """Run with stderr (and stdin) at a terminal and stdout in a pipe: (exit code, stdout, stderr)."""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                seen.append(os.read(ours, 4096))
            except OSError:  # Linux's way to say that the other end is closed
                return

    process = start(*command, stdin=theirs, stderr=theirs, env=ENVIRONMENT | environment)
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=HANGS_S)
    reader.join()
    os.close(ours)
    return process.returncode, out.decode(), b"".join(seen).decode()


def test_a_pipe_gets_data_only(image: str) -> None:
    process = start(*FAKE, image, "a", "b")
    out, err = process.communicate(timeout=HANGS_S)
    assert (process.returncode, out) == (0, b"red\nred\n")
    assert err.isascii()
    assert b"\x1b" not in err and b"\r" not in err


@pytest.mark.parametrize("verbosity", [(), ("-v",), ("-vv",)])
def test_stdout_in_a_pipe_with_stderr_at_a_terminal(image: str, verbosity: tuple[str, ...]) -> None:
    code, out, err = at_a_terminal(*FAKE, image, "a", "b", "--json", *verbosity, FAKE_LOAD_S="0.3")
    assert code == 0
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["red", "red"]
    assert "loading demo ..." in err
    assert "a library prints while it loads" in err


def test_a_terminal_gets_colour_and_bars(image: str) -> None:
    _, out, err = at_a_terminal(*FAKE, image, "a")
    assert out == "red\n"
    assert "━" in err
    assert "\x1b[1m" in err


def test_no_colour_when_asked(image: str) -> None:
    _, out, err = at_a_terminal(*FAKE, image, "a", NO_COLOR="1", FAKE_LOAD_S="0.3")
    assert out == "red\n"
    assert not re.search(r"\x1b\[[0-9;]*m", err)
    assert "\x1b[?25l" in err  # the spinner is no colour
    assert "144 of 576 kept (25%)" in err


def test_no_animation_where_there_can_be_none(image: str) -> None:
    _, out, err = at_a_terminal(*FAKE, image, "a", TERM="dumb", FAKE_LOAD_S="0.3")
    assert out == "red\n"
    assert "\x1b" not in err
    assert "144 of 576 kept (25%)" in err


def test_colour_can_be_forced_into_a_pipe(image: str) -> None:
    process = start(*FAKE, image, "a", env=ENVIRONMENT | {"FORCE_COLOR": "1"})
    out, err = process.communicate(timeout=HANGS_S)
    assert out == b"red\n"
    assert "━".encode() in err and b"\x1b[1m" in err


def test_a_terminal_without_unicode(image: str) -> None:
    code, _, err = at_a_terminal(*FAKE, image, "a", PYTHONIOENCODING="ascii", FAKE_LOAD_S="0.3")
    assert code == 0
    assert err.isascii()


def test_a_terminal_without_a_question_is_not_waited_for(image: str) -> None:
    code, out, err = at_a_terminal(*FAKE, image)
    assert (code, out) == (2, "")
    assert "QUESTION is missing" in err


def test_a_reader_that_leaves(image: str) -> None:
    process = start(*FAKE, image, *"abcdefgh")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(HANGS_S) == 141
    assert "Traceback" not in err and "Broken" not in err


@pytest.mark.parametrize("args", [("--help",), ("PHOTO", "a"), ("PHOTO", "a", "-vv"), ("PHOTO", "")])
def test_everything_into_a_pipe_that_nobody_reads(image: str, args: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(*FAKE, *(image if arg == "PHOTO" else arg for arg in args), stdout=write, stderr=write)
    os.close(write)
    assert process.wait(HANGS_S) == 141


def test_a_full_disk(image: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = start(*FAKE, image, "a", stdout=full)
    os.close(full)
    _, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 1
    assert b"adafv: cannot write to standard output: No space left on device\n" in err
    assert b"Traceback" not in err and b"Exception ignored" not in err


def test_a_started_process_hears_ctrl_c_also_where_it_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start(sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT).__name__)")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.communicate(timeout=HANGS_S)[0] == b"default_int_handler\n"


def test_ctrl_c_is_one_line(image: str) -> None:
    process = start(*FAKE, image, "a", env=ENVIRONMENT | {"FAKE_LOAD_S": "30"})
    assert process.stderr is not None
    assert process.stderr.readline() == b"a library prints while it loads\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANGS_S)
    assert (process.returncode, out, err) == (130, b"", b"adafv: interrupted\n")


def test_output_that_is_not_utf8(image: str) -> None:
    process = start(*FAKE, image, "a", env=ENVIRONMENT | {"FAKE_TEXT": "grün 绿", "PYTHONIOENCODING": "latin-1"})
    out, _ = process.communicate(timeout=HANGS_S)
    assert (process.returncode, out) == (0, "grün ?\n".encode("latin-1"))


def scene() -> tuple[str, str]:
    """A held-out scene that comes with the repository, and a question about it."""
    line = json.loads((ROOT / "sample_images" / "questions.jsonl").read_text().splitlines()[0])
    return str(ROOT / "sample_images" / line["image"]), line["text"]


def test_the_bundled_checkpoint_answers() -> None:
    image, question = scene()
    process = start(*REAL, image, question, question)
    out, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, err
    first, second = out.decode().splitlines()
    assert first == second != ""
    assert b"encoded once" in err
    assert b"note:" not in err
    assert b"\x1b" not in err and b"Warning" not in err and b"%|" not in err


def test_the_bundled_checkpoint_fills_the_json() -> None:
    """In this process, which has torch already: another one would take seconds to import it."""
    image, question = scene()
    done = adafv("ask", "-", question, "--json", "--compare", "-vv", stdin=Path(image).read_bytes())
    assert done.code == 0, done.stderr
    answer = json.loads(done.stdout)
    tokens = answer["tokens"]
    assert tokens["kept"] == tokens["from_saliency"] + tokens["from_similarity"] - tokens["from_both"]
    assert 0 < answer["flops"]["total"] < answer["flops"]["unpruned_total"]
    assert 0 < answer["latency_s"]["ttft"] < answer["latency_s"]["total"]
    assert answer["memory_bytes"]["kv_cache"] < answer["memory_bytes"]["unpruned_kv_cache"]
    assert set(answer["compare"]) == {"text", "agrees", "ttft_s", "total_s", "speedup_ttft", "speedup_total"}


def test_a_checkpoint_that_is_none(image: str) -> None:
    process = start(*REAL, image, "q", "-m", "tests")
    out, err = process.communicate(timeout=HANGS_S)
    assert (process.returncode, out) == (3, b""), err
    assert err.decode().startswith("adafv: ") and "config.json" in err.decode()
    assert err.decode().count("\n") == 2


@pytest.mark.parametrize(
    "flags,part",
    [
        (("-m", "no/such/folder"), "no/such/folder"),
        (("-m", "nobody/nothing", "--offline"), "nobody/nothing"),
        (("--device-map", "mps"), "mps"),
    ],
)
def test_checkpoints_and_devices_that_are_not_there(image: str, flags: tuple[str, ...], part: str) -> None:
    done = adafv("ask", image, "q", *flags)
    assert (done.code, done.stdout) == (3, ""), done.stderr
    said = done.stderr.removeprefix("note: the demo only knows drawn scenes; photos need -m llava-hf/llava-1.5-7b-hf\n")
    assert said.startswith("adafv: ") and part in said and said.count("\n") == 2
