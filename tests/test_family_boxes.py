"""Where `boxes` says that a visual token looks, it looks: in every family, what is painted there changes the token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

import adafv
from adafv.families import FAMILIES
from adafv.families.geometry import Box
from tests import tiny
from tests.conftest import noise
from tests.stock import encoded

SIZES = [(112, 112), (230, 90), (80, 300), (130, 120)]  # width, height
BLUR = 3  # pixels of a crop, or of the image where those are larger, that resizing mixes


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> adafv.Model:
    """A tiny checkpoint of each family, in whose tower no patch hears of another."""
    changes = {"vision_feature_layers": [-2, 1]} if request.param == "vipllava" else {}
    made = adafv.load(str(tiny.save(request.param, tmp_path, **changes)), dtype="float32", device_map="cpu")
    with torch.no_grad():
        for layer in made.pipeline.model.model.vision_tower.encoder.layers:
            layer.self_attn.out_proj.weight.zero_()
            layer.self_attn.out_proj.bias.zero_()
    return made


def regions(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Nine overlapping parts of the image, each a half as wide and high."""
    for x in (0, width // 4, width // 2):
        for y in (0, height // 4, height // 2):
            yield x, y, x + width // 2, y + height // 2


def painted(image: Image.Image, region: tuple[int, int, int, int]) -> Image.Image:
    """Invert a part of an image."""
    copy = image.copy()
    copy.paste(ImageOps.invert(image.crop(region)), region[:2])
    return copy


def inside(box: Box, region: Box) -> bool:
    return region[0] <= box[0] and region[1] <= box[1] and box[2] <= region[2] and box[3] <= region[3]


def apart(box: Box, region: Box, margin: float) -> bool:
    return (
        box[2] + margin < region[0]
        or region[2] + margin < box[0]
        or box[3] + margin < region[1]
        or region[3] + margin < box[1]
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_token_changes_with_what_its_box_shows(model: adafv.Model, size: tuple[int, int]) -> None:
    image, stages = noise(*size, seed=3), model.pipeline.stages
    (before,) = encoded(model, image)
    boxes = stages.boxes((size[1], size[0]), before)
    assert len(boxes) == len(before.tokens) and any(boxes)
    told = 0
    for region in regions(*size):
        (after,) = encoded(model, painted(image, region))
        changed = ((after.tokens - before.tokens).abs().amax(dim=1) > 1e-4).tolist()
        for box, change in zip(boxes, changed, strict=True):
            if box is None:
                assert not change
                continue
            margin = BLUR * max(1.0, (box[2] - box[0]) / stages._vision.patch_size) + blend(model) * (box[3] - box[1])
            assert change or not inside(box, region)
            assert not change or not apart(box, region, margin)
            told += inside(box, region) or apart(box, region, margin)
    assert told > 2 * len(boxes)


def blend(model: adafv.Model) -> float:
    """Neighbours that a token is mixed of, in its own size: where a mosaic is interpolated to fewer tokens."""
    return 1.0 if model.pipeline.model.config.model_type == "llava_onevision" else 0.0
