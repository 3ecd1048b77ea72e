"""Which dtype `auto` loads a checkpoint in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.rates import as_fast
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


@pytest.mark.parametrize(
    "halves,free,dtype",
    [
        (True, 2**40, torch.bfloat16),
        (False, 2**40, torch.float32),
        (False, 1000, torch.bfloat16),  # float32 would not fit
        (False, None, torch.bfloat16),
    ],
)
def test_a_large_one_is_what_the_cpu_is_faster_in(
    half: Path, monkeypatch: pytest.MonkeyPatch, halves: bool, free: int | None, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("adafv.loading.checkpoint._SMALL_PARAMETERS", 1000)
    monkeypatch.setattr("adafv.loading.checkpoint.multiplies_halves", lambda: halves)
    monkeypatch.setattr("adafv.loading.checkpoint.available", lambda: free)
    assert loaded(half) is dtype
    assert loaded(half, "float16") is torch.float16  # what is asked for stays


def asked_about(single: float, half: float) -> bool:
    """The probe, on a machine where each product takes so many seconds, but for a slow one among them."""
    spans = iter([9.0, *[single] * 4, *[half] * 4, 9.0])
    ticks = (value for span in spans for value in (0.0, span))
    return as_fast(lambda: next(ticks))


@pytest.mark.parametrize("single,half,fast", [(1.0, 0.5, True), (1.0, 1.1, True), (1.0, 1.2, False), (1.0, 8.0, False)])
def test_the_probe_compares_the_fastest_products(single: float, half: float, fast: bool) -> None:
    assert asked_about(single, half) == fast


def test_on_an_accelerator_it_stays_float16(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adafv.loading.checkpoint.on_cpu_only", lambda _: False)
    assert loaded(half) is torch.float16


def test_float32_stays(llava_folder: Path) -> None:
    assert loaded(llava_folder) is torch.float32
