"""`adafv sweep` as a process: terminals, pipes, signals. The model is a fake, the rest is real."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch_fakes import answers, asking, questions
from tests.test_batch_streams import slow, wait_for
from tests.test_cli_streams import ENVIRONMENT, HANGS_S, at_a_terminal, start

FAKE = (sys.executable, "-m", "tests.batch_fakes", "sweep")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return questions(tmp_path, *map(asking, range(40)))


def test_a_pipe_gets_points_only_also_when_stderr_is_a_terminal(path: str) -> None:
    code, out, err = at_a_terminal(*FAKE, path, "--keep", "5%,25%", FAKE_STEP_S="0.1", FAKE_NOISE="a library prints\n")
    assert (code, [point["keep"] for point in answers(out)]) == (0, ["all", "5%", "25%"])
    assert "━" in err and "120" in err and "a library prints" in err and "adafv at 5%" in err


def test_the_first_interrupt_finishes_the_batch_and_shows_what_there_is(tmp_path: Path, path: str) -> None:
    out = tmp_path / "answers.jsonl"
    process = start(*FAKE, path, "-o", str(out), "--batch-size", "4", "--keep", "5%,25%", env=slow(0.5))
    wait_for(out, 12)
    process.send_signal(signal.SIGINT)
    shown, err = process.communicate(timeout=HANGS_S)
    said, points = err.decode(), answers(shown.decode())
    assert process.returncode == 130
    assert said.startswith("adafv: interrupted: finishing the running batch (again: stop at once)\n")
    assert f"adafv sweep --resume {path} -o {out} --batch-size 4 --keep 5%,25%\n" in said
    written = len(out.read_bytes().splitlines())
    assert {point["partial"] for point in points} == {True}
    assert [point["questions"] for point in points] == [written // 3] * 3 and written % 3 == 0 and written < 120
    again = start(*FAKE, path, "-o", str(out), "--keep", "5%,25%", "--resume")
    shown, _ = again.communicate(timeout=HANGS_S)
    points = answers(shown.decode())
    assert [(point["questions"], point["partial"]) for point in points] == [(40, False)] * 3


def test_a_reader_that_has_left_costs_nothing_that_was_logged(tmp_path: Path, path: str) -> None:
    out = tmp_path / "answers.jsonl"
    process = start(*FAKE, path, "-o", str(out), "-q")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(HANGS_S) == 141
    assert err == b""
    assert len(out.read_bytes().splitlines()) == 200


def test_an_interrupt_while_standard_input_is_silent(tmp_path: Path, path: str) -> None:
    out = tmp_path / "answers.jsonl"
    args = ("-", "--image-folder", str(tmp_path), "-o", str(out), "--keep", "5%")
    process = start(*FAKE, *args, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(Path(path).read_bytes().splitlines(keepends=True)[0])
    process.stdin.flush()
    wait_for(out, 2)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode == 130
    assert [point["questions"] for point in answers(shown.decode())] == [1, 1]


def test_help_needs_nothing_heavy() -> None:
    code = "import sys; from adafv_cli.app import main\ntry: main()\nexcept SystemExit as end: status = end.code\n"
    heavy = ("torch", "transformers", "PIL", "numpy", "matplotlib")
    code += f"print(status, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    process = start(sys.executable, "-c", code, "sweep", "--help", env=ENVIRONMENT | {"TERM": "dumb"})
    out, err = process.communicate(timeout=HANGS_S)
    assert err.strip() == b"0 []"
    text = out.decode()
    assert text.index("adafv sweep sample_images/questions.jsonl") < text.index("--output")
    assert max(map(len, text.splitlines())) <= 80
    for flag in ("-o", "--resume", "--force", "--keep", "--pruner", "--tolerance", "--metric", "--plot", "--by"):
        assert flag in text
    assert "ADAFV_KEEP" not in text and "--compare" not in text
