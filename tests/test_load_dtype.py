"""Which dtype `auto` loads a checkpoint in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from adafv.loading.checkpoint import load_checkpoint
from adafv.settings import LoadSettings


def loaded(folder: Path, dtype: str = "auto") -> object:
    return load_checkpoint(LoadSettings(str(folder), device_map="cpu", dtype=dtype)).model.dtype


@pytest.fixture(scope="module")
def half(llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint in float16, as the published ones are."""
    folder = tmp_path_factory.mktemp("half")
    for path in llava_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    AutoModelForImageTextToText.from_pretrained(llava_folder, dtype=torch.float16).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_asked_for(half: Path, dtype: str) -> None:
    assert loaded(half, dtype) is getattr(torch, dtype)


def test_a_small_float16_checkpoint_is_float32_on_a_cpu(half: Path) -> None:
    assert loaded(half) is torch.float32


def test_a_large_one_is_bfloat16(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adafv.loading.checkpoint._SMALL_PARAMETERS", 1000)
    assert loaded(half) is torch.bfloat16


def test_on_an_accelerator_it_stays_float16(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adafv.loading.checkpoint.on_cpu_only", lambda _: False)
    assert loaded(half) is torch.float16


def test_float32_stays(llava_folder: Path) -> None:
    assert loaded(llava_folder) is torch.float32
