"""Ctrl-C at any moment: 130 and one line, whatever a half-imported library makes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_fakes import picture
from tests.test_cli_streams import start

INTERRUPTED = (130, b"", b"adafv: interrupted\n")


def after(seconds: float, signal_name: str = "SIGINT") -> str:
    """Code that sends this process a signal when it has used so much processor time."""
    return (
        "import signal\n"
        f"signal.signal(signal.SIGVTALRM, lambda *_: signal.raise_signal(signal.{signal_name}))\n"
        f"signal.setitimer(signal.ITIMER_VIRTUAL, {seconds})\n"
    )


def run(code: str, *args: str) -> tuple[int, bytes, bytes]:
    process = start(sys.executable, "-c", code, *args)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("seconds", [0.005, 0.02, 0.04])
def test_while_python_imports(seconds: float) -> None:
    assert run(f"from adafv_cli.app import main\n{after(seconds)}main()", "ask", "-", "q") == INTERRUPTED


@pytest.mark.parametrize("module", ["PIL.Image", "numpy._core", "numpy.linalg", "torch.storage", "transformers"])
def test_while_libraries_are_imported(tmp_path: Path, module: str) -> None:
    code = f"""
import signal, sys
from adafv_cli.app import main
class Interrupting:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
main()
"""
    assert run(code, "ask", picture(tmp_path / "a.png", scene=True), "q") == INTERRUPTED


@pytest.mark.parametrize("disguise", ["RecursionError('too deep')", "AdaFVError('broken')", "SystemExit(1)"])
def test_an_error_that_does_not_know_what_it_comes_from(tmp_path: Path, disguise: str) -> None:
    code = f"""
import signal, sys
from adafv.errors import AdaFVError
from adafv_cli.app import main
from tests.cli_fakes import engine_with
def load(settings):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass
    raise {disguise}
sys.modules["adafv.engine"] = engine_with(load)
main()
"""
    assert run(code, "ask", picture(tmp_path / "a.png", scene=True), "q") == INTERRUPTED


def test_before_the_command_line_is_imported() -> None:
    code = """
import builtins, signal, sys
from adafv_cli.app import main
real = builtins.__import__
def disguised(name, *rest):
    if name == "adafv_cli.console":
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        raise ImportError("half of it is missing")
    return real(name, *rest)
builtins.__import__ = disguised
main()
"""
    assert run(code, "ask", "-", "q") == INTERRUPTED


def test_what_the_shell_has_ignored_stays_so(tmp_path: Path) -> None:
    """`adafv ... &` of a script goes on when the script's foreground is interrupted."""
    image = picture(tmp_path / "a.png", scene=True)
    code = f"""
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from tests.test_interrupts import after
exec({after(0.1)!r})
import sys
from adafv_cli.app import main
from tests.cli_fakes import FakeModel, engine_with
sys.modules["adafv.engine"] = engine_with(lambda settings: FakeModel())
main()
"""
    assert run(code, "ask", image, "q", "-q") == (0, b"red\n", b"")


def test_the_module_of_the_script_imports_next_to_nothing() -> None:
    """Until it is there, an interrupt is a traceback of Python's."""
    code = "import __future__, sys; before = set(sys.modules)\n"
    code += "import adafv_cli.app\nprint(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['adafv_cli', 'adafv_cli.app']"


def test_sigterm_is_not_ctrl_c() -> None:
    assert run(f"from adafv_cli.app import main\n{after(0.02, 'SIGTERM')}main()", "ask", "-", "q")[0] == -signal.SIGTERM
