"""`adafv batch` as a process: pipes, terminals, signals, full disks. The model is a fake, the rest is real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.batch_fakes import answers, asking, questions
from tests.test_cli_streams import ENVIRONMENT, HANGS_S, ROOT, at_a_terminal, start

FAKE = (sys.executable, "-m", "tests.batch_fakes", "batch")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return questions(tmp_path, *map(asking, range(40)))


def slow(step_s: float) -> dict[str, str]:
    return ENVIRONMENT | {"FAKE_STEP_S": str(step_s)}


def wait_for(done: Path, lines: int) -> None:
    """Until a file has so many lines."""
    end = time.monotonic() + HANGS_S
    while not done.exists() or done.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_until_caught(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Until a process handles a signal that Python itself does not."""
    end, status = time.monotonic() + HANGS_S, Path(f"/proc/{process.pid}/status")
    if not status.exists():  # not on Linux
        time.sleep(5)
        return
    while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_pipe_gets_answers_only_also_when_stderr_is_a_terminal(path: str) -> None:
    code, out, err = at_a_terminal(*FAKE, path, FAKE_STEP_S="0.1", FAKE_NOISE="a library prints\n")
    assert (code, [answer["question_id"] for answer in answers(out)]) == (0, list(range(40)))
    assert "━" in err and "/s" in err and "of visual tokens saved" in err
    assert "a library prints" in err
    assert "40 answered" in err


def test_no_animation_where_there_can_be_none(path: str) -> None:
    code, out, err = at_a_terminal(*FAKE, path, TERM="dumb")
    assert (code, len(answers(out))) == (0, 40)
    assert "\x1b" not in err


def test_a_bar_without_colour(path: str) -> None:
    code, out, err = at_a_terminal(*FAKE, path, NO_COLOR="1", FAKE_STEP_S="0.1")
    assert (code, len(answers(out))) == (0, 40)
    assert "━" in err and not re.search(r"\x1b\[[0-9;]*m", err)


def test_two_pipes(path: str) -> None:
    process = start(*FAKE, path)
    out, err = process.communicate(timeout=HANGS_S)
    assert (process.returncode, len(answers(out.decode()))) == (0, 40)
    assert err.isascii() and b"\x1b" not in err and b"\r" not in err


def test_a_reader_that_leaves(tmp_path: Path, path: str) -> None:
    """It ends with the next answer although the input goes on: standard input stays open, and nothing comes."""
    process = start(*FAKE, "-", "--batch-size", "1", "--image-folder", str(tmp_path), stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    lines = Path(path).read_bytes().splitlines(keepends=True)
    process.stdin.write(lines[0])
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["question_id"] == 0
    process.stdout.close()
    process.stdin.write(lines[1])
    process.stdin.flush()
    assert process.wait(HANGS_S) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
    process.stdin.close()


def test_the_first_answer_comes_before_the_second_question(tmp_path: Path, path: str) -> None:
    process = start(*FAKE, "-", "--batch-size", "1", "--image-folder", str(tmp_path), stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    for number in range(3):
        process.stdin.write(json.dumps(asking(number)).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["question_id"] == number
    out, _ = process.communicate(timeout=HANGS_S)
    assert (process.returncode, out) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_finishes_the_batch_and_says_how_to_go_on(
    tmp_path: Path, path: str, number: signal.Signals
) -> None:
    out = tmp_path / "my answers.jsonl"
    process = start(*FAKE, path, "-o", str(out), "--batch-size", "4", "--force", env=slow(1))
    wait_for(out, 4)
    process.send_signal(number)
    _, err = process.communicate(timeout=HANGS_S)
    said = err.decode()
    assert process.returncode == 130
    assert said.startswith("adafv: interrupted: finishing the running batch (again: stop at once)\n")
    assert f"adafv batch --resume {path} -o '{out}' --batch-size 4\n" in said
    ids = [answer["question_id"] for answer in answers(out.read_text())]
    assert ids == list(range(len(ids))) and len(ids) % 4 == 0 and 4 <= len(ids) < 40
    again = start(*FAKE, path, "-o", str(out), "--batch-size", "4", "--resume")
    assert again.wait(HANGS_S) == 0
    assert [answer["question_id"] for answer in answers(out.read_text())] == list(range(40))
    again.communicate()


def test_the_second_interrupt_stops_at_once(tmp_path: Path, path: str) -> None:
    out = tmp_path / "answers.jsonl"
    process = start(*FAKE, path, "-o", str(out), "--batch-size", "4", env=slow(3600))
    wait_until_caught(process, signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"adafv: interrupted: finishing")
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(HANGS_S) == 130  # the batch takes an hour
    finally:
        process.kill()
        process.communicate()


def test_an_interrupt_while_standard_input_is_silent(tmp_path: Path, path: str) -> None:
    process = start(*FAKE, "-", "--batch-size", "1", "--image-folder", str(tmp_path), stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(asking(1)).encode() + b'\n{"cut off')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["question_id"] == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(HANGS_S) == 130
    out, err = process.communicate()
    assert out == b""
    assert b"a run with -o FILE can be resumed" in err and b"Fatal" not in err and b"Traceback" not in err


def test_a_full_disk_names_the_last_good_line(tmp_path: Path, path: str) -> None:
    out = tmp_path / "answers.jsonl"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\nimport runpy, sys\n"
    run = limit + f"sys.argv = ['adafv', 'batch', {path!r}, '-o', {str(out)!r}]\n"
    run += "runpy.run_module('tests.batch_fakes', run_name='__main__')"
    process = start(sys.executable, "-c", run)
    _, err = process.communicate(timeout=HANGS_S)
    written = answers("\n".join(out.read_text().split("\n")[:-1]))
    assert process.returncode == 1
    last = f"; its last good line is that of question_id {written[-1]['question_id']}"
    assert f"adafv: cannot write to {out}: File too large{last}\n" in err.decode()
    assert start(*FAKE, path, "-o", str(out), "--resume", stderr=subprocess.DEVNULL).wait(HANGS_S) == 0
    assert [answer["question_id"] for answer in answers(out.read_text())] == list(range(40))


def test_a_second_writer(tmp_path: Path, path: str) -> None:
    out = tmp_path / "answers.jsonl"
    first = start(*FAKE, path, "-o", str(out), "--batch-size", "4", env=slow(30))
    wait_for(out.with_name("answers.jsonl.settings.json"), 1)
    second = start(*FAKE, path, "-o", str(out), "--resume")
    _, err = second.communicate(timeout=HANGS_S)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert b"is being written by another process" in err


def test_an_input_that_can_be_read_only_once(tmp_path: Path, path: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(Path(path).read_bytes()))
    writer.start()
    process = start(*FAKE, str(pipe), "--image-folder", str(tmp_path))
    out, _ = process.communicate(timeout=HANGS_S)
    writer.join()
    assert (process.returncode, len(answers(out.decode()))) == (0, 40)


def test_help_needs_no_torch() -> None:
    code = "import sys; from adafv_cli.app import main\ntry: main()\nexcept SystemExit as end: status = end.code\n"
    code += "print(status, [name for name in ('torch', 'transformers', 'PIL') if name in sys.modules], file=sys.stderr)"
    process = start(sys.executable, "-c", code, "batch", "--help", env=ENVIRONMENT | {"TERM": "dumb"})
    out, err = process.communicate(timeout=HANGS_S)
    assert err.strip() == b"0 []"
    text = out.decode()
    assert text.index("adafv batch sample_images/questions.jsonl") < text.index("--output")
    assert max(map(len, text.splitlines())) <= 80
    for flag in ("-o", "--resume", "--force", "--image-folder", "--batch-size", "--report", "--fail-fast", "--shard",
                 "--dry-run", "--keep", "--model"):  # fmt: skip
        assert flag in text


def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    """Slow because each of the fifty gets some way before it is killed."""
    command = [sys.executable, "-m", "tests.batch_kills", str(tmp_path / "killed"), "--kills", "50", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout) == (0, "50 kills\n"), done.stderr
