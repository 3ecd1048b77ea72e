"""Help: what it says, and what it imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from adafv import LoadSettings, RunSettings

LIGHT = {
    "typer", "rich",  # and what these two bring along
    "annotated_doc", "annotated_types", "markdown_it", "mdurl", "pydantic", "pydantic_core", "pygments", "shellingham",
    "typing_extensions", "typing_inspection",
    "attr",  # which rich looks for, and finds where something else has brought it
}  # fmt: skip
PLAIN = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS")}
PLAIN |= {"TERM": "dumb", "COLUMNS": "80"}


def adafv(*args: str, width: int = 80, module: str = "adafv_cli") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *args]
    env = PLAIN | {"COLUMNS": str(width)}
    return subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, check=False)


def light_help(*args: str) -> str:
    """What a command prints that imports the terminal's packages alone.

    What makes help slow is what it imports, so everything that is not known to be light is denied.
    """
    code = (
        "import sys; from adafv_cli.app import main\n"
        "try: main()\nexcept SystemExit as end: status = end.code\n"
        "print(status, *{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, capture_output=True, text=True, env=PLAIN, check=True, timeout=600)
    status, *imported = done.stderr.split()
    assert status == "0" and "typer" in imported
    foreign = {name for name in imported if not name.startswith("_")} - set(sys.stdlib_module_names)
    assert foreign - LIGHT == {"adafv", "adafv_cli"}
    return done.stdout


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["-h"], ["ask", "--help"], ["ask", "-h"]], ids=" ".join)
def test_help_imports_the_terminal_s_packages_alone(args: list[str]) -> None:
    assert light_help(*args)


@pytest.mark.parametrize("command", ["batch", "sweep", "show"])
def test_help_shows_no_flag_that_is_refused(command: str) -> None:
    text = adafv(command, "--help").stdout
    assert "--keep" in text and "--compare" not in text


def test_ask_help_starts_with_examples_and_names_everything() -> None:
    done = adafv("ask", "--help")
    text = done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert text.index("adafv ask sample_images/street.png") < text.index("--model")
    panels = ("Model", "Pruning", "Answer", "Output", "Exit codes")
    settings = [field.name for kind in (LoadSettings, RunSettings) for field in fields(kind) if field.init]
    flags = ["--" + name.replace("_", "-") for name in settings if name != "select"]  # of a file of questions
    flags += ["-m", "-k", "--json", "-q", "--quiet", "-v", "--verbose", "-h", "--help"]
    stated = ("ADAFV_MODEL", "ADAFV_KEEP", "ADAFV_DEVICE_MAP", "default: 25%", "default: demo", "default: 128")
    for part in (*panels, *flags, *stated):
        assert part in text, part
    assert max(len(line) for line in text.splitlines()) <= 80


def test_help_lists_every_pruner() -> None:
    from adafv import pruners

    text = " ".join(adafv("ask", "--help").stdout.replace("│", " ").split())
    assert ", ".join(pruners.names()) in text


@pytest.mark.parametrize("args", [(), ("ask",)])
def test_no_arguments_show_help(args: tuple[str, ...]) -> None:
    done = adafv(*args)
    assert done.returncode == 2
    assert "Examples" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", [(), ("ask",), ("batch",), ("sweep",), ("show",), ("info",), ("samples",)])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_paragraphs_fill_the_terminal(command: tuple[str, ...], width: int) -> None:
    """No line ends while there is room for the next word."""
    text = adafv(*command, "--help", width=width).stdout.split("╭")[0]
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.split("\n") if line.strip()]
        if "Examples" in lines:
            continue
        for line, following in pairwise(lines):
            assert len(f"{line} {following.split()[0]}") > width - 2, (line, following)


def test_switches_take_no_value() -> None:
    text = adafv("batch", "--help").stdout
    assert "<bool>" not in text and "--offline" in text and "<int>" in text
    assert "<bool>" not in adafv("--help").stdout


@pytest.mark.parametrize("flag", ["--version", "-V"])
@pytest.mark.parametrize("module", ["adafv_cli", "adafv"])
def test_version(flag: str, module: str) -> None:
    import torch
    import transformers

    import adafv as library

    done = adafv(flag, module=module)
    python = ".".join(map(str, sys.version_info[:3]))
    torch_version = torch.__version__.partition("+")[0]
    assert done.returncode == 0
    assert done.stdout.startswith(f"adafv {library.__version__} (python {python}, torch {torch_version}")
    assert f"transformers {transformers.__version__}" in done.stdout and done.stdout.count("\n") == 1


@pytest.mark.parametrize("flag,word", [("--pruner", "sali"), ("--positions", "ori"), ("--dtype", "bf")])
def test_completion_offers_the_values(flag: str, word: str) -> None:
    line = f"adafv ask photo.jpg {flag} {word}"
    words = {"_ADAFV_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-m", "adafv_cli"], capture_output=True, text=True, env=PLAIN | words, check=False
    )
    assert done.stdout.startswith(word)
    assert done.returncode == 0


@pytest.mark.parametrize("flag", ["--show-completion", "--install-completion"])
def test_completion_of_the_shell_is_no_failure(tmp_path: Path, flag: str) -> None:
    command = f"{sys.executable} -m adafv_cli {flag}; exit $?"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=PLAIN | {"HOME": str(tmp_path)}, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "completion" in done.stdout


@pytest.mark.parametrize("args", ["--help", "ask --help", "--version", "--show-completion"])
def test_a_full_disk(tmp_path: Path, args: str) -> None:
    command = f"ulimit -f 0; {sys.executable} -B -m adafv_cli {args} > {tmp_path / 'full'}; exit $?"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=PLAIN, check=False)
    assert done.returncode == 1
    assert done.stderr == "adafv: cannot write to standard output: File too large\n  make room on the disk\n"
