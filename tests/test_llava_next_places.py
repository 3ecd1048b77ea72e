"""Which pixels the kept tokens of LLaVA-NeXT come from.

The vision tower is made of glass: what comes out of it for a patch is the mean colour of its own pixels, and its
crop. In the pictures red marks what is looked for, and green and blue grow with the column and the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import adafv
from adafv import pruners
from adafv.signals.ranking import saliency_ranking
from tests import reference, tiny
from tests.stock import encoded, evidence

TILE = 168  # 12 x 12 patches


@pytest.fixture(scope="module")
def glass(tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    folder = tiny.save_llava_next(tmp_path_factory.mktemp("glass"), tile=TILE)
    model = adafv.load(str(folder), dtype="float32", device_map="cpu")
    stages: Any = model.pipeline.stages
    images = model._checkpoint.processor.image_processor

    def see(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (images.image_mean, images.image_std))
        patches = torch.nn.functional.avg_pool2d(values.float() * std + mean, tiny.PATCH)  # (crops, 3, side, side)
        colours = patches.flatten(2).transpose(1, 2)
        crop = 1e-3 * torch.arange(len(values)).view(-1, 1, 1).expand(*colours.shape[:2], 1)
        return (
            torch.nn.functional.pad(torch.cat([colours, crop], dim=-1), (0, 44)),
            colours[..., 0].clamp(min=0),
            colours,
        )

    stages._vision_features, stages._projector = see, lambda features: features
    return model


def marked(width: int, height: int, box: Sequence[float]) -> Image.Image:
    """Red inside `box` (left, top, right, bottom, each from 0 to 1)."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 1] = np.linspace(0, 255, width)[None]
    pixels[..., 2] = np.linspace(0, 255, height)[:, None]
    left, top, right, bottom = (round(x * y) for x, y in zip(box, (width, height) * 2, strict=True))
    pixels[top:bottom, left:right, 0] = 255
    return Image.fromarray(pixels)


MARKED = [
    ((640, 480), (0.6, 0.1, 0.9, 0.4)), ((640, 480), (0.1, 0.6, 0.4, 0.9)), ((480, 640), (0.55, 0.55, 0.9, 0.9)),
    ((900, 300), (0.05, 0.2, 0.25, 0.8)), ((900, 300), (0.75, 0.2, 0.95, 0.8)), ((300, 900), (0.2, 0.7, 0.8, 0.9)),
    ((600, 220), (0.4, 0.1, 0.6, 0.9)), ((112, 112), (0.5, 0.0, 1.0, 0.5)),
]  # fmt: skip


@pytest.mark.parametrize(("size", "box"), MARKED, ids=str)
def test_kept_tokens_come_from_the_pixels_they_are_chosen_for(
    glass: adafv.Model, size: tuple[int, int], box: tuple[float, ...]
) -> None:
    (encoding,) = encoded(glass, marked(*size, box))
    looked = encoding.packed[encoding.candidates]
    keep = int((encoding.saliency > 0.9).sum())
    assert keep > 1
    kept = encoding.saliency.topk(keep).indices
    red, across, down = looked[kept, :3].T
    assert red.min() > 0.9
    assert across.min() > box[0] - 0.02 and across.max() < box[2] + 0.02
    assert down.min() > box[1] - 0.02 and down.max() < box[3] + 0.02
    assert torch.equal(encoding.crop, (1e3 * looked[:, 3]).round().long())
    assert encoding.crop[kept].unique().numel() > 1  # found in the thumbnail and in a tile

    text = torch.zeros(1, looked.shape[1])
    text[0, 0] = 1  # the word for red
    similar = pruners.get("similarity")(evidence(encoding, text), keep).indices[0]
    assert looked[similar, 0].mean() > 0.9


@pytest.mark.parametrize("keep", [3, 20, 41])
@pytest.mark.parametrize(("size", "box"), MARKED, ids=str)
def test_every_crop_is_heard_before_one_is_heard_more(
    glass: adafv.Model, size: tuple[int, int], box: tuple[float, ...], keep: int
) -> None:
    (encoding,) = encoded(glass, marked(*size, box))
    share = -(-keep // encoding.crops)
    wanted = reference.fairly_ranked(encoding.saliency.tolist(), encoding.crop.tolist(), share)[:keep]
    assert saliency_ranking(evidence(encoding), keep)[0].tolist() == wanted


@pytest.mark.parametrize("size", [size for size, _ in MARKED] + [(800, 40), (40, 800), (61, 97)], ids=str)
def test_candidates_stand_in_the_mosaic_s_order(glass: adafv.Model, size: tuple[int, int]) -> None:
    (encoding,) = encoded(glass, marked(*size, (0, 0, 0, 0)))
    colours = encoding.packed[encoding.candidates][:, 1:3]
    start = 0
    for rows, columns in encoding.grids:
        grid = colours[start : start + rows * columns].view(rows, columns, 2)
        start += rows * columns
        place = torch.stack(
            [((torch.arange(columns) + 0.5) / columns).expand(rows, columns),
             ((torch.arange(rows) + 0.5) / rows)[:, None].expand(rows, columns)], dim=-1,
        )  # fmt: skip
        # The outermost patches may hold a strip of padding.
        inner = (slice(1, -1) if rows > 2 else slice(None), slice(1, -1) if columns > 2 else slice(None))
        assert (grid - place)[inner].abs().max() < 0.6 / min(rows, columns)
        if columns > 3:
            assert (grid[inner][:, 1:, 0] > grid[inner][:, :-1, 0]).all()
        if rows > 3:
            assert (grid[inner][1:, :, 1] > grid[inner][:-1, :, 1]).all()
