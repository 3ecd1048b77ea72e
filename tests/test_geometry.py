"""Where crops and their cells lie in the image: what changes in the crops when a small box of the image does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaImageProcessorPil, LlavaNextImageProcessorPil

from adafv.families.geometry import Box, Frame, single_crop, thumbnail_and_tiles
from tests.published import CLIP_PREPROCESSOR, NEXT_PREPROCESSOR, PINPOINTS

SIDE, TILE = 14, 56  # pixels of a cell, and of a small crop
SQUARE = {"height": TILE, "width": TILE}
CLIPS: dict[str, Any] = {
    "shortest edge, then the middle": CLIPImageProcessorPil(size={"shortest_edge": TILE}, crop_size=SQUARE),
    "squeezed into a square": CLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE),
    "the middle of something larger": CLIPImageProcessorPil(size={"shortest_edge": 71}, crop_size=SQUARE),
    "smaller than its crop": CLIPImageProcessorPil(size={"shortest_edge": 31}, crop_size=SQUARE),
    "the longest edge is bounded": CLIPImageProcessorPil(
        size={"shortest_edge": 40, "longest_edge": TILE}, crop_size=SQUARE
    ),
    "cut, not resized": CLIPImageProcessorPil(do_resize=False, crop_size=SQUARE),
    "padded to a square": LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": TILE}, crop_size=SQUARE),
    "padded to a square before": LlavaImageProcessorPil(do_pad=True, size=SQUARE, crop_size=SQUARE),
    "LLaVA's own, without padding": LlavaImageProcessorPil(size={"shortest_edge": TILE}, crop_size=SQUARE),
}
SIZES = [
    (56, 56), (57, 55), (112, 112), (640, 480), (480, 640), (333, 100), (100, 333), (61, 97), (32, 32), (800, 100),
    (100, 800), (20, 9), (9, 20), (1000, 41),
]  # fmt: skip


def small(resolutions: list[list[int]]) -> LlavaNextImageProcessorPil:
    return LlavaNextImageProcessorPil(size={"shortest_edge": TILE}, crop_size=SQUARE, image_grid_pinpoints=resolutions)


def framed(width: int, height: int, processor: Any) -> list[Frame]:
    if isinstance(processor, LlavaNextImageProcessorPil):
        return thumbnail_and_tiles(width, height, processor, processor.image_grid_pinpoints)
    return [single_crop(width, height, processor, getattr(processor, "do_pad", False))]


def crops(pixels: np.ndarray[Any, Any], processor: Any) -> np.ndarray[Any, Any]:
    """(crops, H, W)"""
    values = np.asarray(processor(images=Image.fromarray(pixels), return_tensors="np")["pixel_values"])
    return values.reshape(-1, *values.shape[-3:]).sum(axis=1)


def overlap(box: Box | None, other: Box, margin_x: float = 0.0, margin_y: float = 0.0) -> bool:
    """Whether they overlap when the first one is that much larger on every side."""
    if box is None:
        return False
    left, top, right, bottom = box[0] - margin_x, box[1] - margin_y, box[2] + margin_x, box[3] + margin_y
    return min(right, other[2]) > max(left, other[0]) and min(bottom, other[3]) > max(top, other[1])


def check(width: int, height: int, processor: Any, seed: int = 0, boxes: int = 3, side: int = SIDE) -> None:
    rng = np.random.default_rng(seed)
    frames = framed(width, height, processor)
    flat = np.full((height, width, 3), 96, dtype=np.uint8)
    before = crops(flat, processor)
    assert len(frames) == len(before)
    for frame in frames:
        assert (frame.height, frame.width) == before.shape[1:]
    for _ in range(boxes):
        w, h = max(1, width // 9), max(1, height // 9)
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        changed = flat.copy()
        changed[y : y + h, x : x + w] = 255
        difference = np.abs(crops(changed, processor) - before)
        for frame, found in zip(frames, difference, strict=True):
            _agrees(frame, found > 1e-4, found, (x, y, x + w, y + h), side)


def _agrees(frame: Frame, touched: Any, found: Any, box: Box, side: int) -> None:
    # Bicubic filters reach two pixels far, of the image or of the crop, whichever are larger.
    reach_x, reach_y = 2 * max(1, frame.across) + frame.across / 2, 2 * max(1, frame.down) + frame.down / 2
    columns = frame.width // side
    for number in range(columns * (frame.height // side)):
        row, column = divmod(number, columns)
        there = touched[row * side : (row + 1) * side, column * side : (column + 1) * side].any()
        cell = frame.cell(number, columns, side)
        if there:  # padding that was there before resizing catches some of what lies beside it
            x, y = frame.left + column * side * frame.across, frame.top + row * side * frame.down
            whole = (x, y, x + side * frame.across, y + side * frame.down)
            assert overlap(whole, box, reach_x, reach_y), (number, whole, box)
        elif cell is not None:
            # Half a pixel of the crop is less than what resizing must show.
            assert not overlap(cell, box, -frame.across, -frame.down), (number, cell, box)
    inside = frame.seen[0] <= box[0] - reach_x and box[2] + reach_x <= frame.seen[2]
    if inside and frame.seen[1] <= box[1] - reach_y and box[3] + reach_y <= frame.seen[3]:
        rows, columns_ = np.indices(found.shape) + 0.5
        x = frame.left + frame.across * (columns_ * found).sum() / found.sum()
        y = frame.top + frame.down * (rows * found).sum() / found.sum()
        assert abs(x - (box[0] + box[2]) / 2) < 0.1 * frame.across + 0.1
        assert abs(y - (box[1] + box[3]) / 2) < 0.1 * frame.down + 0.1


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("processor", CLIPS.values(), ids=CLIPS)
def test_one_crop(processor: Any, size: tuple[int, int]) -> None:
    check(*size, processor)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles(size: tuple[int, int]) -> None:
    check(*size, small([[rows * TILE, columns * TILE] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=6, unique=True),
    st.integers(2, 400), st.integers(2, 400), st.integers(0, 99),
)  # fmt: skip
def test_tiles_of_any_list_of_resolutions(grids: list[tuple[int, int]], width: int, height: int, seed: int) -> None:
    check(width, height, small([[rows * TILE, columns * TILE] for rows, columns in grids]), seed, boxes=2)


@pytest.mark.parametrize("size", [(4000, 3000), (1024, 768), (500, 1400), (336, 336), (2000, 250)], ids=str)
@pytest.mark.parametrize(
    "processor",
    [CLIPImageProcessorPil(**CLIP_PREPROCESSOR), LlavaNextImageProcessorPil(**NEXT_PREPROCESSOR)],
    ids=["llava-1.5", "llava-next"],
)
def test_published_checkpoints(processor: Any, size: tuple[int, int]) -> None:
    check(*size, processor, boxes=1)


def test_places_in_a_photo_of_3_to_2() -> None:
    """Worked out by hand."""
    clip = single_crop(1344, 896, CLIPImageProcessorPil(**CLIP_PREPROCESSOR))
    assert clip.seen == pytest.approx((224, 0, 1120, 896))
    assert clip.cell(25, 24, 14) == pytest.approx((224 + 896 / 24, 896 / 24, 224 + 896 / 12, 896 / 12))
    frames = thumbnail_and_tiles(1344, 896, LlavaNextImageProcessorPil(**NEXT_PREPROCESSOR), PINPOINTS)
    wanted = [(0, 0, 1344, 896), (0, 0, 672, 448), (672, 0, 1344, 448), (0, 448, 672, 896), (672, 448, 1344, 896)]
    for frame, box in zip(frames, wanted, strict=True):
        assert frame.seen == pytest.approx(box)
    assert frames[0].cell(1, 24, 14) == pytest.approx((56, 0, 112, 896 / 24))
    # The mosaic's 672 rows hold 448 of the image; 112 rows, which are 8 of cells, are padding above it.
    assert frames[1].cell(7 * 24, 24, 14) is None
    assert frames[2].cell(8 * 24, 24, 14) == pytest.approx((672, 0, 700, 28))
    assert frames[4].cell(15 * 24 + 23, 24, 14) == pytest.approx((1316, 868, 1344, 896))
    assert frames[4].cell(16 * 24, 24, 14) is None
