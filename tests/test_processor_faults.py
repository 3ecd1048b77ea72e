"""An image processor that does not fit the model is refused when it is loaded, not once for every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adafv import CheckpointError
from adafv.loading.checkpoint import load_checkpoint
from adafv.settings import LoadSettings
from tests import tiny
from tests.damages import Damage, field, separate

WRONG: list[tuple[str, Any, str]] = [
    ("crop_size", {"height": 1, "width": 1}, "crop_size.height"),
    ("crop_size", {"height": 56, "width": 2**40}, "crop_size.width"),
    ("crop_size.height", 0, "crop_size.height"),
    ("crop_size.width", -56, "crop_size.width"),
    ("crop_size.width", "56", "crop_size.width"),
    ("size", {"shortest_edge": 0}, "size.shortest_edge"),
    ("size", {"shortest_edge": -56}, "size.shortest_edge"),
    ("size", {"shortest_edge": 10**9}, "size.shortest_edge"),
    ("size", {"height": 7, "width": 7}, "size.height"),
    ("image_mean", [0.5], "image_mean"),
    ("image_mean", None, "image_mean"),
    ("image_mean", "grey", "image_mean"),
    ("image_mean", [0.5, 0.5, -200], "image_mean"),
    ("image_std", [0.5, 0.5, 0], "image_std"),
    ("image_std", 2**70, "image_std"),
    ("rescale_factor", 0, "rescale_factor"),
    ("rescale_factor", 1e300, "rescale_factor"),
    ("rescale_factor", "small", "rescale_factor"),
]


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("in_own_file", [False, True], ids=["one file", "two files"])
@pytest.mark.parametrize(("path", "value", "what"), WRONG, ids=lambda part: str(part)[:40])
def test_wrong_numbers(path: str, value: Any, what: str, in_own_file: bool, whole: Path, tmp_path: Path) -> None:
    def edit(folder: Path) -> None:
        if in_own_file:
            separate(folder)
            field("preprocessor_config.json", path, value)(folder)
        else:
            field("processor_config.json", f"image_processor.{path}", value)(folder)

    folder = Damage("any", path, edit).of(whole, tmp_path / "wrong")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert what in caught.value.what or "Validation error" in caught.value.what
    assert str(folder) in caught.value.what
    assert "config.json" in caught.value.what
    assert len(caught.value.what) < 500
    assert "fetch the checkpoint again" in caught.value.fix


OTHERS: list[tuple[str, Any, str]] = [
    ("resample", -200, "Unknown resampling filter"),
    ("resample", None, "`resample` must be specified"),
    ("image_processor_type", "Pix2StructImageProcessor", ""),
    ("image_processor_type", "NoSuchImageProcessor", "preprocessor_config.json"),
]


@pytest.mark.parametrize(("path", "value", "what"), OTHERS, ids=lambda part: str(part)[:40])
def test_what_shows_with_an_image_alone(path: str, value: Any, what: str, whole: Path, tmp_path: Path) -> None:
    edit = field("processor_config.json", f"image_processor.{path}", value)
    folder = Damage("any", path, edit).of(whole, tmp_path / "wrong")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert what in caught.value.what and str(folder) in caught.value.what


def test_another_family_s_processor(tmp_path: Path) -> None:
    """An image that is not square shows how many crops are made."""
    one, many = (tiny.save(kind, tmp_path / kind) for kind in ("llava", "llava_next"))
    files = [folder / "processor_config.json" for folder in (one, many)]
    first, second = (file.read_text() for file in files)
    files[0].write_text(second)
    files[1].write_text(first)
    for folder, made in ((one, "made 3 crops of 56 x 56 pixels where"), (many, "made 1 crops of 56 x 56 pixels where")):
        with pytest.raises(CheckpointError, match=made) as caught:
            load_checkpoint(LoadSettings(str(folder)))
        assert str(folder) in caught.value.what


def test_code_of_its_own_is_not_run(whole: Path, tmp_path: Path) -> None:
    def edit(folder: Path) -> None:
        field("processor_config.json", "auto_map", {"AutoProcessor": "own.Processor"})(folder)
        field("processor_config.json", "processor_class", "OwnProcessor")(folder)
        (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    folder = Damage("any", "auto_map", edit).of(whole, tmp_path / "wrong")
    with pytest.raises(CheckpointError, match="needs code of its own, which adafv never runs"):
        load_checkpoint(LoadSettings(str(folder)))
    assert not (tmp_path / "ran").exists()
