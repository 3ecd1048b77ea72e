"""The README is true: its commands run and print what it shows; what it says of the project's files holds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HANGS_S = 600  # no command takes a tenth of that
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("*", "adafv/**/*", "sample_images/**/*", "benchmarks/**/*")
    for path in ROOT.glob(f"{folder}.md")
)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def consoles() -> list[tuple[str, str]]:
    """Commands of the `console` blocks, each with the output shown under it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.parametrize(("command", "output"), consoles())
def test_commands_print_what_is_shown(command: str, output: str, tmp_path: Path) -> None:
    """Slow: what a reader would type, so a process each, which imports torch and loads the demo."""
    tool = tmp_path / "adafv"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m adafv_cli "$@"\n')
    tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NO_COLOR": "1"}
    for name in ("ADAFV_MODEL", "ADAFV_KEEP", "ADAFV_DEVICE_MAP"):
        env.pop(name, None)
    process = subprocess.Popen(
        command, shell=True, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=HANGS_S)
    finally:
        with suppress(ProcessLookupError):  # the shell's children as well; there are none left unless it hangs
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err
    assert out == output


def test_there_are_commands_to_run() -> None:
    assert len(consoles()) >= 4


def test_the_test_command_is_what_ci_runs() -> None:
    (command,) = re.findall(r"need neither network nor GPU:\n\n```sh\n(.*)\n```", README)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def tree() -> dict[str, set[str]]:
    """What README names in each folder, by its path; words of the explanations among it."""
    rooms: dict[str, set[str]] = {}
    package = room = ""
    for line in README.split("## What is where")[1].split("```")[1].splitlines():
        entry = line.split()[0] if line.strip() else ""
        if entry.endswith("/"):
            package = entry if not line.startswith(" ") else package
            room = entry if entry == package else package + entry
        elif line.startswith("  ") and not line.startswith("   "):
            room = package
        rooms.setdefault(room, set()).update(re.findall(r"\w+", line))
    return rooms


def test_every_file_is_named_where_it_is() -> None:
    for package in ("adafv", "adafv_cli"):
        for path in (ROOT / package).rglob("*.py"):
            if not path.stem.startswith("__"):
                assert path.stem in tree()[f"{path.parent.relative_to(ROOT).as_posix()}/"], path


def test_folders_named_are_there() -> None:
    assert len(tree()) > 15
    assert all((ROOT / room).is_dir() for room in tree() if room)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pictures_and_links_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        assert ((ROOT / page).parent / target).exists(), target
    assert targets or page not in ("README.md", "adafv/demo/README.md")
