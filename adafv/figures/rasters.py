"""The pictures in the panels of an explanation, as arrays of pixels that cover the whole image.

Rows and columns of such an array are those of the image, scaled. Every panel but the first shows the pixels that the
vision tower got, crop by crop where the crop lies, and not those of the image: where either were wrong, the panel
would be a puzzle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from adafv.explanation import Explanation, VisualToken


Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Okabe and Ito's.
SALIENCY, SIMILARITY, BOTH, KEPT, MERGED = (213, 94, 0), (0, 114, 178), (204, 121, 167), (230, 159, 0), (0, 158, 115)
RAMPS: dict[str, tuple[Colour, ...]] = {  # ColorBrewer's oranges and blues
    "saliency": ((253, 208, 162), (241, 105, 19), (127, 39, 4)),
    "similarity": ((198, 219, 239), (66, 146, 198), (8, 48, 107)),
}
DROPPED, UNSEEN, _STRIPE = (64, 64, 64), (238, 238, 238), (200, 200, 200)
_DIM = 0.34  # what is left of the light of a dropped token
_TINT = 0.12  # of a signal's colour over what it chose
_MEAN = 0.6  # of the mean colour of what was merged over its pixels
_SLIVER = 1e-6  # pixels of the image that are rounding
_GROUND = 225  # the grey that a colour bar shows its colours on


def places(explanation: Explanation, numbers: Sequence[int], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Tell which token each pixel belongs to, -1 where none does.

    Args:
        explanation: whose tokens.
        numbers: of the tokens of one layer.
        shape: (rows, columns) of the array.
    """
    found = np.full(shape, -1, dtype=np.int64)
    down, across = shape[0] / explanation.image.height, shape[1] / explanation.image.width
    for number in numbers:
        box = explanation.tokens[number].box
        if box is not None:
            # An edge that two tokens share must come out as one, whatever its last digits are in either.
            edges = (int(edge * scale + 0.5 + 1e-6) for edge, scale in zip(box, (across, down) * 2, strict=True))
            left, top, right, bottom = edges
            found[top:bottom, left:right] = number
    return found


def whole(image: Image.Image, shape: tuple[int, int]) -> Pixels:
    """Frame the image itself."""
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.LANCZOS))


def crops(explanation: Explanation, owners: NDArray[np.int64]) -> Pixels:
    """Show each crop's pixels where its tokens are (`owners`, as of `places`), hatching elsewhere."""
    rows, columns = owners.shape
    across, down = explanation.image.width / columns, explanation.image.height / rows
    drawn = hatching(owners.shape)
    crop_of = _shown_by(explanation, owners)
    for number in np.unique(crop_of[owners >= 0]):
        crop = explanation.crops[number]
        frame = crop.frame
        # From a pixel of the array to one of the crop.
        matrix = (across / frame.across, 0, -frame.left / frame.across, 0, down / frame.down, -frame.top / frame.down)
        picture = crop.picture.transform(
            (columns, rows), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC
        )
        mask = crop_of == number
        drawn[mask] = np.asarray(picture)[mask]
    return drawn


def _shown_by(explanation: Explanation, owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the crop that shows each pixel: its token's, or where that token reaches over a seam, the tile there."""
    tokens, tiles = explanation.tokens, explanation.crops[1:]
    shown: NDArray[np.int64] = np.array([token.crop for token in tokens] + [-1])[owners]
    wide = np.array([bool(token.crop) and _reaches_out(token, explanation) for token in tokens] + [False])[owners]
    if not wide.any():
        return shown
    rows, columns = owners.shape
    x = (np.arange(columns) + 0.5) * explanation.image.width / columns
    y = ((np.arange(rows) + 0.5) * explanation.image.height / rows)[:, None]
    for number, tile in enumerate(tiles, start=1):
        left, top, right, bottom = tile.frame.seen
        shown[wide & (left <= x) & (x < right) & (top <= y) & (y < bottom)] = number
    return shown


def _reaches_out(token: VisualToken, explanation: Explanation) -> bool:
    """Tell whether a token shows a part of its crop and something beyond, as one that was interpolated may."""
    if token.box is None:
        return False
    left, top, right, bottom = token.box
    near_x, near_y, far_x, far_y = explanation.crops[token.crop].frame.seen
    overlaps = min(right, far_x) - max(left, near_x) > _SLIVER and min(bottom, far_y) - max(top, near_y) > _SLIVER
    return overlaps and max(near_x - left, near_y - top, right - far_x, bottom - far_y) > _SLIVER


def hatching(shape: tuple[int, int]) -> Pixels:
    """Draw what stands for the area that no token shows."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    width = max(2, max(shape) // 100)
    stripes: Pixels = np.array((UNSEEN, _STRIPE), dtype=np.uint8)[(rows + columns) // width % 2]
    return stripes


def heat(background: Pixels, owners: NDArray[np.int64], values: Sequence[float], top: float, ramp: str) -> Pixels:
    """Values of the tokens over the desaturated background, on a square-root scale from 0 to `top`."""
    levels = levels_of(values, top)
    coloured = _blended(_pale(background), ramp, np.append(levels, 0)[owners])
    drawn: Pixels = np.where(owners[..., None] >= 0, coloured, background)
    return drawn


def bar(ramp: str, length: int) -> Pixels:
    """List the colours of `heat` from nothing to the top: (1, length)."""
    return _blended(np.full((1, length, 3), _GROUND, dtype=np.uint8), ramp, np.linspace(0, 1, length)[None])


def levels_of(values: Sequence[float], top: float) -> NDArray[np.float64]:
    """Scale values to 0 to 1, by square roots."""
    return np.sqrt(np.asarray(values, dtype=np.float64) / (top or 1))


def fates(
    background: Pixels,
    owners: NDArray[np.int64],
    colours: Sequence[Colour | None],
    areas: Sequence[int | None],
    width: int,
) -> Pixels:
    """Kept tokens bright and in a border of their colour, dropped ones dimmed.

    What was merged is one area: nearly of one colour, as the language model saw one token, in a border of its own.

    Args:
        background: as of `crops`.
        owners: as of `places`.
        colours: of each token, `None` where it is dropped.
        areas: number of the area that each token was merged into, `None` where it is on its own or dropped.
        width: of the border in pixels, inside the tokens.
    """
    palette = [None, *dict.fromkeys(known for known in colours if known is not None)]
    table = np.array([known or (0, 0, 0) for known in palette], dtype=np.float64)
    kinds = np.array([palette.index(known) for known in colours] + [-1])  # the last one is where there is no token
    kind = kinds[owners]
    colour = table[kind]
    area = np.array([-1 if number is None else number for number in areas] + [-1])[owners]
    bright = (1 - _TINT) * _averaged(background, area) + _TINT * colour
    edges = (_edges(kind, width) | _edges(area, width)) & (kind > 0)
    bright[edges] = colour[edges]
    dim = _DIM * (0.35 * background + 0.65 * _grey(background))
    drawn = np.where(kind[..., None] > 0, bright, np.where(kind[..., None] == 0, dim, background))
    return drawn.round().clip(0, 255).astype(np.uint8)


def _averaged(pixels: Pixels, area: NDArray[np.int64]) -> NDArray[np.float64]:
    """Draw the mean colour of each area over its pixels; -1 is none."""
    drawn, known = pixels.astype(np.float64), area >= 0
    if not known.any():
        return drawn
    _, numbers = np.unique(area[known], return_inverse=True)
    counts = np.bincount(numbers)
    for channel in range(drawn.shape[-1]):
        values = drawn[..., channel]
        mean = np.bincount(numbers, weights=values[known]) / counts
        values[known] = (1 - _MEAN) * values[known] + _MEAN * mean[numbers]
    return drawn


def border(owners: NDArray[np.int64], dpi: int) -> int:
    """Choose a width for borders around tokens of that size: a hundredth of an inch, less where they are small."""
    _, areas = np.unique(owners[owners >= 0], return_counts=True)
    side = np.sqrt(np.median(areas)) if len(areas) else 1
    return int(max(1, min(round(dpi / 100), round(side / 8))))


def _edges(kind: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Pixels that are at most `width` pixels away from another kind, or from the end of the array."""
    near = np.zeros(kind.shape, dtype=np.bool_)
    padded = np.pad(kind, width, constant_values=-2)
    rows, columns = kind.shape
    for step in range(1, width + 1):
        for y, x in ((0, step), (0, -step), (step, 0), (-step, 0)):
            near |= padded[width + y : width + y + rows, width + x : width + x + columns] != kind
    return near


def _grey(pixels: Pixels) -> NDArray[np.float64]:
    luminance: NDArray[np.float64] = pixels @ np.array([0.299, 0.587, 0.114])
    return np.repeat(luminance[..., None], 3, axis=-1)


def _pale(pixels: Pixels) -> NDArray[np.float64]:
    """Grey, and of little contrast: a ground for colours."""
    return 0.5 * _grey(pixels) + 0.5 * 255


def _blended(background: Any, ramp: str, levels: NDArray[np.float64]) -> Pixels:
    """Colours over the background; the less there is to show, the more of the background shows through."""
    stops = np.array(RAMPS[ramp], dtype=np.float64)
    where = np.linspace(0, 1, len(stops))
    colour = np.stack([np.interp(levels, where, stops[:, channel]) for channel in range(3)], axis=-1)
    share = np.minimum(2.5 * levels, 0.8)[..., None]
    blended: Pixels = ((1 - share) * background + share * colour).round().clip(0, 255).astype(np.uint8)
    return blended
