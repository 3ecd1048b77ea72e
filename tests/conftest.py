"""What most tests need: tiny checkpoints, saved once, loaded through the real path."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

import adafv
from tests import tiny

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that tests start share the cores with them
# The same examples every time, however long each takes on a busy machine.
settings.register_profile("adafv", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("adafv")


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA-1.5 checkpoint."""
    return tiny.save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def llava(llava_folder: Path) -> adafv.Model:
    """The same, loaded in float32."""
    return adafv.load(str(llava_folder), dtype="float32")


@pytest.fixture(scope="session")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    """A tiny LLaVA-NeXT, loaded in float32."""
    folder = tiny.save_llava_next(tmp_path_factory.mktemp("llava-next"))
    return adafv.load(str(folder), dtype="float32", device_map="cpu")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image of smooth noise, different everywhere."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def image() -> Image.Image:
    return noise(70, 56)
