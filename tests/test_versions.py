"""Versions below the bounds are named at the start, with the ones needed; the bounds are those of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import typer

from adafv import DeviceError
from adafv.versions import OLDEST, check_versions
from tests.cli_fakes import adafv, picture

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """As if these versions were installed; of a `None` nothing is known."""
    real = metadata.version

    def version(name: str) -> str:
        found = versions.get(name, real(name))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


def test_the_bounds_are_those_of_the_project() -> None:
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", text) for text in PROJECT["dependencies"]]
    assert {found[1]: found[2] for found in bounds if found} == OLDEST
    assert len(bounds) == len(OLDEST)


def test_the_oldest_versions_that_are_tested_are_at_the_bounds() -> None:
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    for name, bound in OLDEST.items():
        if name != "torch":  # the one that can be had on the machine that runs the tests
            assert (pinned[name] + ".").startswith(bound + "."), name


@pytest.mark.parametrize("versions", [{}, {"torch": "2.6.0a0+df5bbc09d1.nv24.11"}, {"transformers": "5.17.0.dev0"}])
def test_the_bounds_themselves_will_do(versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, **OLDEST | versions)
    check_versions()


def test_what_no_installer_has_put_there_is_left_to_its_import(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch=None)
    check_versions()


def test_all_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch="2.5.1+cu124", transformers="4.57.1")
    with pytest.raises(DeviceError) as caught:
        check_versions()
    assert "torch 2.5.1+cu124 is installed, adafv needs 2.6 or newer" in caught.value.what
    assert "transformers 4.57.1 is installed, adafv needs 5.17 or newer" in caught.value.what
    assert caught.value.fix == "pip install 'torch>=2.6' 'transformers>=5.17'"


def test_the_library_says_it_before_the_engine_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, accelerate="1.9.0")
    with pytest.raises(DeviceError, match=r"accelerate 1\.9\.0"):
        from adafv import load  # noqa: F401 - importing it is what is tested


@pytest.mark.parametrize("command", ["ask", "show", "info", "batch", "dry run"])
def test_every_command_that_needs_them_says_it(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, transformers="5.4.0")
    image, lines = picture(tmp_path / "a.png", scene=True), tmp_path / "a.jsonl"
    lines.write_text('{"image": "a.png", "text": "what?"}\n')
    args = {
        "ask": ["ask", image, "what?"],
        "show": ["show", image, "what?", "--json"],
        "info": ["info"],
        "batch": ["batch", str(lines)],
        "dry run": ["batch", str(lines), "--dry-run"],
    }[command]
    done = adafv(*args)
    assert (done.code, done.stdout) == (3, "")
    assert "adafv: transformers 5.4.0 is installed, adafv needs 5.17 or newer\n  pip install 'tr" in done.stderr


def test_an_old_typer_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(typer, "TyperException")
    installed(monkeypatch, typer="0.20.0")
    done = adafv("ask", picture(tmp_path / "a.png", scene=True), "what?")
    assert (done.code, done.stderr.splitlines()[0]) == (
        3,
        "adafv: typer 0.20.0 is installed, adafv needs 0.28 or newer",
    )


def test_help_asks_for_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, transformers="5.4.0")
    assert adafv("ask", "--help").code == 0
