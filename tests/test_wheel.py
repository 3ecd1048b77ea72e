"""What is installed: the library, the command line and the demo's checkpoint, and nothing else of the source tree."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from adafv.demo import BUNDLED

ROOT = Path(__file__).parent.parent
LARGEST = 20_000_000  # bytes
INSTALLED, LEFT = ("adafv", "adafv_cli"), ("recipe", "tests", "benchmarks", "sample_images")


def test_the_wheel(tmp_path: Path) -> None:
    """Built by the project's own backend, from a copy: building leaves folders behind."""
    pytest.importorskip("setuptools", minversion="77")  # the installed one, so that no network is needed
    tree = tmp_path / "tree"
    for folder in (*INSTALLED, *LEFT):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = "from setuptools.build_meta import build_wheel; build_wheel('built')"
    (tree / "built").mkdir()
    command = [sys.executable, "-c", build]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tree / "built").glob("adafv-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "adafv = adafv_cli.app:main" in archive.read(entry).decode()
    there = {path for folder in INSTALLED for path in (tree / folder).rglob("*") if path.is_file()}
    assert held == {path.relative_to(tree).as_posix() for path in there}
    assert {"adafv/py.typed", "adafv/demo/checkpoint/config.json", "adafv/demo/README.md"} <= held
    assert {"adafv/demo/samples/street.png", "adafv/demo/samples/village.png"} <= held
    assert wheel.stat().st_size < LARGEST
    for folder in BUNDLED.values():
        assert f"adafv/demo/{folder.name}/model.safetensors" in held


def run(module: str, *args: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run `python -m recipe.MODULE` in this process, which has torch already; its exit code."""
    monkeypatch.setattr(sys, "argv", [module, *args])
    monkeypatch.chdir(ROOT)
    for name in [name for name in sys.modules if name == f"recipe.{module}"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        runpy.run_module(f"recipe.{module}", run_name="__main__")
    except SystemExit as ended:
        return ended.code or 0
    return 0


@pytest.mark.parametrize("module", ["gates", "heldout", "samples", "train"])
def test_the_recipe_runs_from_the_source_tree(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(module, "--help", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert f"python -m recipe.{module}" in " ".join(said.split()) and "--out" in said


def test_a_few_held_out_questions_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--set", "hard", "--per-kind", "1", "--out", str(tmp_path))
    assert run("heldout", *args, monkeypatch=monkeypatch) == 0
    assert (tmp_path / "questions.jsonl").read_text().count("\n") >= 9
