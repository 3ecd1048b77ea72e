"""How LLaVA-NeXT cuts a picture into a thumbnail and tiles, and in which order it packs their patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from recipe.drawing import GRID, SIDE
from recipe.vision_losses import PATCHES
from recipe.vision_training import DEVIATION, MEAN

SHAPES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # rows, columns of tiles, as published
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows, columns in SHAPES]
MOST_CROPS = 5
NEWLINE = -1


@dataclass(frozen=True)
class Mosaic:
    """What becomes of a picture of one size."""

    rows: int  # of tiles
    columns: int
    top: int  # rows and columns of patches that unpadding takes off the mosaic before the first
    left: int
    high: int  # rows and columns of patches that stay
    wide: int

    @property
    def crops(self) -> int:
        """Thumbnail and tiles."""
        return 1 + self.rows * self.columns

    @property
    def packed(self) -> int:
        """Visual tokens and newlines."""
        return PATCHES + self.high * (self.wide + 1)


def mosaic_of(height: int, width: int) -> Mosaic:
    """The mosaic of a picture of this size, by transformers' own choice and its own unpadding."""
    rows, columns = get_anyres_image_grid_shape((height, width), PINPOINTS, SIDE)
    lines = torch.arange(rows * GRID)[None, :, None].expand(1, -1, columns * GRID)
    places = torch.arange(columns * GRID)[None, None].expand(1, rows * GRID, -1)
    kept_rows, kept_columns = (unpad_image(index, (height, width))[0] for index in (lines, places))
    high, wide = kept_rows.shape
    return Mosaic(rows, columns, int(kept_rows[0, 0]), int(kept_columns[0, 0]), high, wide)


def origins(mosaic: Mosaic) -> NDArray[np.int64]:
    """Of each packed token its patch, crop * PATCHES + cell, or NEWLINE; (packed,)."""
    row = np.arange(mosaic.top, mosaic.top + mosaic.high)[:, None]
    column = np.arange(mosaic.left, mosaic.left + mosaic.wide)[None]
    crop = 1 + row // GRID * mosaic.columns + column // GRID
    lines = crop * PATCHES + row % GRID * GRID + column % GRID
    ended = np.concatenate([lines, np.full((mosaic.high, 1), NEWLINE)], axis=1)
    return np.concatenate([np.arange(PATCHES), ended.ravel()])


def places(mosaic: Mosaic) -> NDArray[np.float32]:
    """Column and row of each packed token, (packed, 2): in the thumbnail's grid, then in the mosaic's."""
    small = np.stack([np.arange(PATCHES) % GRID, np.arange(PATCHES) // GRID], axis=1)
    row, column = np.divmod(np.arange(mosaic.high * (mosaic.wide + 1)), mosaic.wide + 1)
    return np.concatenate([small, np.stack([column, row], axis=1)]).astype(np.float32)


def image_processor() -> LlavaNextImageProcessorPil:
    """What cuts pictures for the checkpoint, in training as in use."""
    return LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[round(x, 8) for x in MEAN.tolist()],
        image_std=[round(x, 8) for x in DEVIATION.tolist()],
        image_grid_pinpoints=PINPOINTS,
    )


def crops_of(picture: Image.Image, images: LlavaNextImageProcessorPil) -> NDArray[np.uint8]:
    """Thumbnail and tiles as the processor cuts them, before it normalises them: (crops, SIDE, SIDE, 3)."""
    pixels = images(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    return np.asarray(pixels).transpose(0, 2, 3, 1).astype(np.uint8)
