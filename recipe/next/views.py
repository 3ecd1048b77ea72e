"""Draw wide scenes, and say which patch of which crop shows which thing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from recipe.dataset import FIELDS, GROUND, OWNED, SKY, TOUCHED
from recipe.digits import COUNT, stroke_shapes
from recipe.drawing import GRID, SIDE, pixels_of, render
from recipe.names import CLASSES, COLOURS
from recipe.next.mosaic import Mosaic, mosaic_of
from recipe.next.scenes import WideScene
from recipe.scenes import MOST_THINGS
from recipe.shapes import parts_of
from recipe.vision_losses import PATCHES

PATCH = SIDE // GRID
SAMPLES = 2  # of the truth, along a side of a pixel

Shares = NDArray[np.float32]


def draw(wide: WideScene) -> Image.Image:
    """The scene as an RGB picture."""
    return render(wide.scene, wide.side).crop((0, 0, wide.width, wide.height))


def shares_of(stamp: Image.Image, mosaic: Mosaic) -> Shares:
    """How much of each patch of each crop a mask covers, (crops * PATCHES,); `stamp`: the picture's 0 or 1, mode L."""
    thumbnail = np.asarray(_floats(stamp).resize((GRID, GRID), Image.Resampling.BOX))
    # The picture lies in the middle of the mosaic, and fills it one way or both.
    wide, high = mosaic.columns * SIDE, mosaic.rows * SIDE
    canvas = Image.new("L", (wide * SAMPLES, high * SAMPLES), 0)
    left, top = (wide - stamp.width // SAMPLES) // 2, (high - stamp.height // SAMPLES) // 2
    canvas.paste(stamp, (left * SAMPLES, top * SAMPLES))
    cells = np.asarray(_floats(canvas).reduce(PATCH * SAMPLES))
    tiles = cells.reshape(mosaic.rows, GRID, mosaic.columns, GRID).transpose(0, 2, 1, 3)
    return np.concatenate([thumbnail.ravel(), tiles.ravel()])


def _floats(stamp: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(stamp, dtype=np.float32))


def coverage(wide: WideScene) -> Shares:
    """How much of each patch each thing covers, (things, crops * PATCHES)."""
    mosaic, side = mosaic_of(wide.height, wide.width), wide.side * SAMPLES
    stamp = Image.new("L", (wide.width * SAMPLES, wide.height * SAMPLES), 0)
    pen = ImageDraw.Draw(stamp)
    for number, thing in enumerate(wide.scene.things, start=1):
        for part in parts_of(thing.kind, thing.variant):
            pen.polygon(pixels_of(part.points, thing, side), fill=number)
    stamped = np.asarray(stamp)
    shares = [
        shares_of(Image.fromarray((stamped == number).astype(np.uint8)), mosaic)
        for number in range(1, len(wide.scene.things) + 1)
    ]
    return np.array(shares, dtype=np.float32).reshape(len(wide.scene.things), mosaic.crops * PATCHES)


def labels(
    wide: WideScene, everywhere: Shares | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Owner and fringe of each patch of each crop, (crops * PATCHES,), and stored things, (MOST_THINGS, FIELDS).

    `everywhere` is the scene's `coverage` where that is known.

    A thing owns patches in its home view alone, the thumbnail where it is large and the tiles where it is not, and
    always one; what hides it from the other view is that the vision part is taught to see background there. Places of
    things are from the middle of the picture, 0.5, in sides of the square: a length means the same in both directions.
    """
    mosaic, everywhere = mosaic_of(wide.height, wide.width), coverage(wide) if everywhere is None else everywhere
    shares = everywhere * _is_home(wide, everywhere)
    horizon = wide.scene.backdrop.horizon * wide.side / wide.height
    sky = Image.new("L", (wide.width * SAMPLES, wide.height * SAMPLES), 0)
    sky.paste(1, (0, 0, sky.width, round(horizon * sky.height)))
    owners = np.where(shares_of(sky, mosaic) >= 0.5, SKY, GROUND).astype(np.uint8)
    top, owner = shares.max(axis=0), shares.argmax(axis=0).astype(np.uint8)
    owners[top >= OWNED] = owner[top >= OWNED]
    things = np.full((MOST_THINGS, FIELDS), -1, dtype=np.float32)
    for number, thing in enumerate(wide.scene.things):
        if not (owners == number).any():
            owners[shares[number].argmax()] = number
        x, y = 0.5 + thing.x - wide.width / wide.side / 2, 0.5 + thing.y - wide.height / wide.side / 2
        kind, colour = CLASSES.index(thing.kind), COLOURS.index(thing.colour)
        things[number] = kind, colour, x, y, everywhere[number, :PATCHES].mean(), thing.strokes
    fringe = (top >= TOUCHED) & (owners >= SKY)
    return owners, fringe.astype(np.uint8), things


def _is_home(wide: WideScene, shares: Shares) -> NDArray[np.bool_]:
    """Whether each patch is of the view that is each thing's home, (things, crops * PATCHES)."""
    in_thumbnail = np.arange(shares.shape[1]) < PATCHES
    home: NDArray[np.bool_] = np.array(wide.large, dtype=bool)[:, None] == in_thumbnail
    return home


def hidden(wide: WideScene, owners: NDArray[np.uint8], shares: Shares) -> NDArray[np.bool_]:
    """Whether each patch of background shows a thing whose home is the other view, (crops * PATCHES,)."""
    shows: NDArray[np.bool_] = (shares * ~_is_home(wide, shares)).max(axis=0) >= TOUCHED
    return shows & (owners >= SKY)


def strokes(wide: WideScene, owners: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Of each patch that belongs to a numbered sign, percent in each stroke's place, (crops * PATCHES, COUNT).

    Below zero where the stroke is not painted.
    """
    mosaic, side = mosaic_of(wide.height, wide.width), wide.side * SAMPLES
    found = np.zeros((len(owners), COUNT), dtype=np.int8)
    for number, thing in enumerate(wide.scene.things):
        own = owners == number
        if not thing.strokes:
            continue
        for stroke, shape in enumerate(stroke_shapes(thing.variant)):
            stamp = Image.new("L", (wide.width * SAMPLES, wide.height * SAMPLES), 0)
            ImageDraw.Draw(stamp).polygon(pixels_of(shape, thing, side), fill=1)
            sign = 1 if thing.strokes >> stroke & 1 else -1
            found[own, stroke] = np.round(100 * sign * shares_of(stamp, mosaic)[own]).astype(np.int8)
    return found
