"""`adafv samples` writes the images of the help's first example, and nothing over a file of somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from adafv.demo import SAMPLES
from adafv_cli.app import ABOUT
from tests.cli_fakes import adafv

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.name for path in SAMPLES.iterdir())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start where no source tree is."""
    monkeypatch.chdir(tmp_path)


def test_they_are_the_sample_images_of_the_source_tree() -> None:
    assert len(NAMES) == 2
    assert all((SAMPLES / name).read_bytes() == (ROOT / "sample_images" / name).read_bytes() for name in NAMES)


def test_the_first_examples_of_the_help_work() -> None:
    first, second = ABOUT.split("[/]\n")[1].splitlines()[:2]
    assert first.split() == ["adafv", "samples"] and second.split()[:2] == ["adafv", "ask"]
    done = adafv("samples")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"sample_images/{name}" for name in NAMES]
    assert Path(second.split()[2]).read_bytes() == (SAMPLES / "street.png").read_bytes()


def test_a_folder_is_made_and_the_same_files_are_written_again() -> None:
    for _ in range(2):
        assert adafv("samples", "a/b").code == 0
    assert sorted(path.name for path in Path("a/b").iterdir()) == NAMES


def test_other_files_are_replaced_by_force_alone() -> None:
    Path("village.png").write_text("mine")
    done = adafv("samples", ".")
    assert done.code == 2 and "village.png exists" in done.stderr and "--force" in done.stderr
    assert Path("village.png").read_text() == "mine" and not Path("street.png").exists()
    assert adafv("samples", ".", "--force").code == 0
    assert Path("village.png").read_bytes() == (SAMPLES / "village.png").read_bytes()


@pytest.mark.parametrize("folder", ["file", "file/below", "x" * 5000, "/proc/nothing"])
def test_no_folder_is_usage(folder: str) -> None:
    Path("file").write_text("mine")
    done = adafv("samples", folder)
    assert (done.code, done.stdout) == (2, "")
    assert "FOLDER: " in done.stderr and len(done.stderr) < 1000
