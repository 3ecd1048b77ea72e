"""LLaVA-NeXT at any aspect ratio: unpruned it is the stock model, and kept tokens are where they are said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import adafv
from adafv import pruners
from adafv.encoding import Pixels
from adafv.errors import CheckpointError
from tests import tiny
from tests.conftest import noise
from tests.stock import Stock, encoded, evidence, run

SIZES = [  # width, height; tiles are 56 x 56
    (56, 56), (112, 112), (113, 111), (640, 480), (480, 640), (333, 100), (100, 333), (168, 56), (56, 168),
    (800, 40), (40, 800), (300, 1), (1, 300), (1, 1), (3, 50), (50, 3), (57, 56), (61, 97),
]  # fmt: skip
QUESTION = "what color is the sign?"
TEXT = f"USER: <image>\n{QUESTION} ASSISTANT:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_llava_next(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def model(folder: Path) -> adafv.Model:
    return adafv.load(str(folder), dtype="float32", device_map="cpu")


@pytest.fixture(scope="module")
def stock(folder: Path) -> Stock:
    return Stock.load(folder)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_keep_all_equals_stock(model: adafv.Model, stock: Stock, size: tuple[int, int]) -> None:
    image = noise(*size)
    (encoding,) = encoded(model, image)
    assert (encoding.packed - stock.visual(image, TEXT)).abs().max() < 1e-5
    wanted = stock.logits(image, TEXT)
    logits, (outcome,) = run(model, (image, QUESTION), keep="all", max_new_tokens=8)
    assert (logits - wanted).abs().max() < 1e-5
    assert outcome.decoded.ids == stock.generated(image, TEXT, 8)
    placeholders = stock.inputs(image, TEXT)["input_ids"][0].tolist().count(3)
    assert len(outcome.kept.tokens) == encoding.visual + encoding.newlines == placeholders


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_grids_add_up_to_the_candidates(model: adafv.Model, size: tuple[int, int]) -> None:
    (encoding,) = encoded(model, noise(*size))
    assert encoding.grids[0] == (tiny.SIDE, tiny.SIDE)
    assert sum(rows * columns for rows, columns in encoding.grids) == encoding.visual
    if len(encoding.grids) == 2:
        (rows, columns), (width, height) = encoding.grids[1], size
        assert rows == encoding.newlines
        # Unpadding leaves the image's own aspect ratio, up to one patch and one pixel.
        assert abs(columns / rows - width / height) <= (1 + columns / rows) / min(rows, columns) + 0.2
    assert encoding.crop[: tiny.PATCHES].eq(0).all() and encoding.crop[tiny.PATCHES :].ge(1).all()
    assert encoding.crops == len(encoding_pixels(model, noise(*size)).values)
    kept = pruners.get("uniform")(evidence(encoding), 7).indices
    assert kept.unique().numel() == 7 and int(kept.max()) < encoding.visual


def encoding_pixels(model: adafv.Model, image: Image.Image) -> Pixels:
    return model.pipeline.stages.preprocess(image)


def test_newlines_are_fed_only_when_nothing_is_pruned(model: adafv.Model) -> None:
    image = noise(333, 100)
    (encoding,) = encoded(model, image)
    newline = model._checkpoint.model.model.image_newline
    places = (encoding.packed == newline).all(dim=1).nonzero()[:, 0]
    assert encoding.newlines == len(places) > 0
    assert not torch.isin(encoding.candidates, places).any()
    for keep in (encoding.visual - 1, 5):
        answer = model.ask(image, QUESTION, keep=keep, max_new_tokens=1)
        assert answer.tokens is not None and (answer.tokens.kept, answer.tokens.newlines) == (keep, 0)


def test_crops_of_another_grid_are_refused(model: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: Any = model.pipeline.stages
    small = tiny.image_processor()
    monkeypatch.setattr(stages._processor, "image_processor", small)
    with pytest.raises(CheckpointError, match=r"made 1 crops of 56 x 56 pixels where the model takes 5 of 56 x 56"):
        stages.preprocess(noise(640, 480))
