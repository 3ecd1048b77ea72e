"""Help: what it says, what it imports, how long it takes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import fields

import pytest

from adafv import LoadSettings, RunSettings

HEAVY = ("torch", "transformers", "accelerate", "PIL", "numpy", "safetensors")
PLAIN = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS")}
PLAIN |= {"TERM": "dumb", "COLUMNS": "80"}


def adafv(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "adafv_cli", *args]
    return subprocess.run(command, capture_output=True, text=True, env=PLAIN, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("args", [("--help",), ("-h",), ("ask", "--help"), ("ask", "-h"), ("--version",)])
def test_help_imports_nothing_heavy(args: tuple[str, ...]) -> None:
    code = (
        "import sys; from adafv_cli.app import main\n"
        "try: main()\nexcept SystemExit as end: status = end.code\n"
        f"print(status, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=PLAIN, check=True)
    assert done.stderr.strip() == "0 []"


def test_help_is_quick() -> None:
    adafv("--help")  # fills the file cache and writes the byte code
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        adafv("ask", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: the clock on the wall also shows what else the machine does.
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5


def test_ask_help_starts_with_examples_and_names_everything() -> None:
    done = adafv("ask", "--help")
    text = done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert text.index("adafv ask sample_images/street.png") < text.index("--model")
    panels = ("Model", "Pruning", "Answer", "Output", "Exit codes")
    settings = [field.name for kind in (LoadSettings, RunSettings) for field in fields(kind) if field.init]
    flags = ["--" + name.replace("_", "-") for name in settings]
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


def test_version() -> None:
    import adafv as library

    done = adafv("--version")
    assert (done.returncode, done.stdout) == (0, f"adafv {library.__version__}\n")


@pytest.mark.parametrize("flag,word", [("--pruner", "sali"), ("--positions", "ori"), ("--dtype", "bf")])
def test_completion_offers_the_values(flag: str, word: str) -> None:
    line = f"adafv ask photo.jpg {flag} {word}"
    words = {"_ADAFV_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-m", "adafv_cli"], capture_output=True, text=True, env=PLAIN | words, check=False
    )
    assert done.stdout.startswith(word)
