"""Where in an image the crops that a vision tower sees of it lie, and so where each visual token looks.

The image processor's own steps, done to a frame instead of to pixels: resizing, and cutting a window out of what was
resized, which pads where the window reaches beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """A picture that was made of an image, and where it lies in that image.

    Args:
        width, height: of the picture, in its own pixels.
        left, top: its upper left corner, in pixels of the image; outside of the image where it is padded.
        across, down: pixels of the image that one of its pixels covers.
        seen: (left, top, right, bottom) of what it shows of the image; empty where it is nothing but padding.
    """

    width: int
    height: int
    left: float
    top: float
    across: float
    down: float
    seen: Box

    @classmethod
    def whole(cls, width: int, height: int) -> Frame:
        """Frame the image itself."""
        return cls(width, height, 0.0, 0.0, 1.0, 1.0, (0.0, 0.0, float(width), float(height)))

    def resized(self, width: int, height: int) -> Frame:
        """Resize to `width` x `height` pixels."""
        across, down = self.across * self.width / width, self.down * self.height / height
        return replace(self, width=width, height=height, across=across, down=down)

    def window(self, left: int, top: int, width: int, height: int) -> Frame:
        """Cut out a part, in pixels of this picture; what lies outside of it is padding."""
        x, y = self.left + left * self.across, self.top + top * self.down
        cut = replace(self, width=width, height=height, left=x, top=y)
        return replace(cut, seen=_common(self.seen, (x, y, x + width * self.across, y + height * self.down)))

    def moved(self, right: int, down: int, side: int) -> Frame:
        """Place it in a square of `side` pixels that the image was put into, `right` and `down` from its corner."""
        left, top = self.left + right, self.top + down
        whole = (left, top, left + self.width * self.across, top + self.height * self.down)
        return replace(self, left=left, top=top, seen=_common((0.0, 0.0, float(side), float(side)), whole))

    def cell(self, number: int, columns: int, side: int) -> Box | None:
        """Tell what a cell of `side` x `side` pixels shows of the image; `None` where that is nothing.

        Args:
            number: cells are counted row by row.
            columns: cells in a row.
            side: in pixels of this picture.
        """
        row, column = divmod(number, columns)
        x, y = self.left + column * side * self.across, self.top + row * side * self.down
        return self.clipped((x, y, x + side * self.across, y + side * self.down))

    def clipped(self, box: Box) -> Box | None:
        """Cut a box of the image down to what this picture shows of it; `None` where that is nothing."""
        seen = _common(self.seen, box)
        return seen if seen[0] < seen[2] and seen[1] < seen[3] else None


def single_crop(width: int, height: int, processor: Any, padded: bool = False) -> Frame:
    """Place the one crop that CLIP's image processor and its kin make of an image of `width` x `height` pixels.

    Args:
        width, height: of the image.
        processor: the image processor; where it pads to a square itself, nobody else need ask for it.
        padded: whether the image was padded to a square before.
    """
    frame = Frame.whole(width, height)
    if padded:
        side = max(width, height)
        frame = frame.window(-((side - width) // 2), -((side - height) // 2), side, side)
    return _sized(frame, processor)


def thumbnail_and_tiles(width: int, height: int, processor: Any, resolutions: Sequence[Sequence[int]]) -> list[Frame]:
    """Place the crops of LLaVA-NeXT's image processor: the whole image squeezed into one, then the tiles, row by row.

    Args:
        width, height: of the image.
        processor: the image processor.
        resolutions: (height, width) of the mosaics of tiles that the model knows.
    """
    image, size, crop = Frame.whole(width, height), processor.size, processor.crop_size
    edge = size.get("shortest_edge")
    small = (size["width"], size["height"]) if size.get("height") and size.get("width") else (edge, edge)
    tile = (crop or {}).get("height") or size.get("height") or edge

    full_height, full_width = select_best_resolution((height, width), list(resolutions))
    shape = torch.empty((3, height, width), device="meta")  # nothing but a shape
    new_height, new_width = get_patch_output_size(shape, (full_height, full_width), ChannelDimension.FIRST)
    padding = ((full_width - new_width) // 2, (full_height - new_height) // 2)
    mosaic = image.resized(new_width, new_height).window(-padding[0], -padding[1], full_width, full_height)
    tiles = [
        mosaic.window(left, top, min(tile, full_width - left), min(tile, full_height - top))
        for top in range(0, full_height, tile)
        for left in range(0, full_width, tile)
    ]
    return [_sized(frame, processor) for frame in (image.resized(*small), *tiles)]


def _sized(frame: Frame, processor: Any) -> Frame:
    """Resize, then cut a window out of the middle, as every image processor does."""
    if processor.do_resize:
        frame = frame.resized(*_resized(frame.width, frame.height, processor.size))
    if not processor.do_center_crop:
        return frame
    width, height = processor.crop_size["width"], processor.crop_size["height"]
    return frame.window(_middle(frame.width, width), _middle(frame.height, height), width, height)


def _resized(width: int, height: int, size: Any) -> tuple[int, int]:
    if size.get("height") and size.get("width"):
        return size["width"], size["height"]
    edge, longest = size["shortest_edge"], size.get("longest_edge")
    if longest and max(width, height) / min(width, height) * edge > longest:
        exact = longest * min(width, height) / max(width, height)
        edge, long = round(exact), int(exact * max(width, height) / min(width, height))
    else:
        long = int(edge * max(width, height) / min(width, height))
    return (edge, long) if width <= height else (long, edge)


def _middle(whole: int, part: int) -> int:
    """Tell where a window of `part` pixels begins; of padding, one pixel more comes first."""
    return (whole - part) // 2


def _common(first: Box, second: Box) -> Box:
    left, top = max(first[0], second[0]), max(first[1], second[1])
    return left, top, max(left, min(first[2], second[2])), max(top, min(first[3], second[3]))
