"""Which tiles an image and a question want: the rule against its definition, and what lies under each tile."""

from __future__ import annotations

import math

import pytest
import torch

import adafv
from adafv import RunSettings
from adafv.errors import InputError
from adafv.families.geometry import Box
from adafv.families.skipping import SkippingStages
from adafv.images import open_image
from adafv.tiles import held, looks, rank
from tests.conftest import noise

SIZES = [(112, 112), (230, 90), (80, 300), (130, 120), (57, 31), (1, 1), (2000, 5), (3, 400)]  # width, height


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_tiles_are_ranked_as_defined(count: int) -> None:
    draw = torch.Generator().manual_seed(count)
    for _ in range(50):
        saliency, relevance = (torch.rand(2, count, generator=draw) ** 4).tolist()
        evidence = [
            (one / math.fsum(saliency) + other / math.fsum(relevance)) / 2
            for one, other in zip(saliency, relevance, strict=True)
        ]
        found = rank(saliency, relevance, range(1, count + 1))
        assert [evidence[tile - 1] for tile in found.order] == sorted(evidence, reverse=True)
        assert found.wanted("auto") == (0, *(k for k in range(1, count + 1) if evidence[k - 1] >= 1 / count))


def test_either_signal_can_name_a_tile() -> None:
    """One tile has the saliency and another what the question asks for: they are the two that matter."""
    found = rank([0.9, 0.05, 0.05, 0.0], [0.0, 0.04, 0.06, 0.9], [1, 2, 3, 4])
    assert found.wanted("2") == found.wanted("auto") == (0, 1, 4)


def test_evidence_that_is_spread_evenly_says_nothing_and_takes_all() -> None:
    for count in (1, 2, 3, 4, 36):
        found = rank([0.1] * count, [0.7 / 3] * count, range(1, count + 1))
        assert found.enough == count and found.order == tuple(range(1, count + 1))
    assert rank([0.0, 0.0], [0.0, 0.0], [1, 2]).wanted("auto") == (0, 1, 2)


def test_evidence_in_one_tile_takes_that_alone() -> None:
    assert rank([0.1, 0.8, 0.1], [0.0, 1.0, 0.0], [1, 2, 5]).wanted("auto") == (0, 2)


def test_of_equals_the_first_tiles_are_taken() -> None:
    assert rank([0.2, 0.3, 0.2, 0.3], [0.2, 0.3, 0.2, 0.3], [1, 2, 3, 4]).order == (2, 4, 1, 3)


def test_only_fewer_tiles_than_there_are_take_a_look() -> None:
    assert [looks(tiles, 4) for tiles in ("all", "auto", "1", "3", "4", "9")] == [False, True, True, True, False, False]
    assert not any(looks(tiles, 0) for tiles in ("all", "auto", "1"))


def area(box: Box | None, other: Box | None = None) -> float:
    if box is None:
        return 0.0
    left, top, right, bottom = box
    if other is not None:
        left, top, right, bottom = max(left, other[0]), max(top, other[1]), min(right, other[2]), min(bottom, other[3])
    return max(0.0, right - left) * max(0.0, bottom - top)


@pytest.mark.parametrize("size", SIZES)
def test_what_lies_under_a_tile_is_where_boxes_say(tiled: adafv.Model, size: tuple[int, int]) -> None:
    """The thumbnail's patches, as `boxes` places them, cut with the tile's frame."""
    stages = tiled.pipeline.stages
    assert isinstance(stages, SkippingStages)
    pixels = tiled.pipeline.preprocess(open_image(noise(*size)))
    parts = dict(enumerate(stages.crops(pixels.values)))
    boxes = stages.boxes(pixels.size, stages.assembled(pixels.size, parts))[: stages.side**2]
    frames, under = stages.frames(pixels.size), stages.under(pixels.size)
    assert under.shape == (len(frames) - 1, len(boxes))
    for tile, row in zip(frames[1:], under.tolist(), strict=True):
        assert row == pytest.approx([area(box, tile.seen) / area(box) for box in boxes], abs=1e-6)
    assert under.sum(dim=0).tolist() == pytest.approx([1.0] * len(boxes), abs=1e-5)  # tiles cover the image, once


def test_what_is_held_adds_up() -> None:
    saliency, relevance = torch.rand(2, 6)
    under = torch.rand(3, 6)
    expected = [[float((row * signal).sum()) for row in under] for signal in (saliency, relevance)]
    for row, wanted in zip(held(saliency, relevance, under).tolist(), expected, strict=True):
        assert row == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("given", "named"),
    [(0, "tiles: 0 encodes no tile"), ("0", "tiles: '0' encodes no tile"), ("-1", "is no number of tiles"),
     (1.5, "is no number of tiles"), (True, "is no number"), ("some", "'some' is no number"), (None, "is no number"),
     ("9" * 100, "is no number of tiles")],
)  # fmt: skip
def test_what_is_no_number_of_tiles_is_refused(given: object, named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        RunSettings(tiles=given)  # type: ignore[arg-type]
    assert error.value.fix == "give a number of tiles (2), auto, or all" and len(error.value.what) < 200


def test_one_number_of_tiles_has_one_form() -> None:
    assert {RunSettings(tiles=one) for one in (2, "2", " 02 ")} == {RunSettings(tiles="2")}
    assert RunSettings(tiles="AUTO").tiles == "auto" and RunSettings().tiles == "all"
