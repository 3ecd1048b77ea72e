"""Training pictures on disk: pixels, patch labels and things of many scenes, as memory-mapped arrays."""

from __future__ import annotations

import io
import logging
import multiprocessing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recipe.digits import COUNT
from recipe.drawing import GRID, SIDE, coverage, render, stroke_coverage
from recipe.names import CLASSES, COLOURS
from recipe.scenes import MOST_THINGS, Scene, Thing

log = logging.getLogger(__name__)

SKY, GROUND = 254, 255  # owners of patches that show no thing
OWNED = 0.2  # a patch belongs to a thing that covers this much of it
TOUCHED = 0.04  # ... and is fringe, not background, from here on
FIELDS = 6  # of a stored thing: class, colour, x, y, area, bits of the strokes painted on it


class Scenes(Protocol):
    """Where pictures to draw come from: scenes by number, and a seed that decides what happens to their pictures."""

    @property
    def seed(self) -> int:
        """Of the pictures' wear."""

    def scene(self, number: int) -> Scene:
        """Scene `number`."""


@dataclass(frozen=True)
class Pictures:
    """Arrays over n pictures."""

    pixels: NDArray[np.uint8]  # (n, SIDE, SIDE, 3)
    owners: NDArray[np.uint8]  # (n, patches): number of a thing, SKY or GROUND
    fringe: NDArray[np.uint8]  # (n, patches): 1 where a thing covers TOUCHED to OWNED of the patch
    things: NDArray[np.float32]  # (n, MOST_THINGS, FIELDS): class -1 where there is no thing
    strokes: NDArray[np.int8]  # (n, patches, COUNT): percent of the patch in each stroke's place, below 0 if blank

    def __len__(self) -> int:
        return len(self.owners)


@dataclass(frozen=True)
class Wear:
    """What may happen to a picture between its maker and the model."""

    scale: float = 1.0  # shrunk to this share of the canvas, with bars around
    bars: int = 0  # grey level of the bars
    dx: float = 0.0  # left margin, as a fraction of the canvas
    dy: float = 0.0
    resized: int = SIDE  # resampled to this side and back
    jpeg: int | None = None  # quality


def wear_of(seed: int, index: int) -> Wear:
    """The wear of training picture `index`: half of them are as drawn."""
    rng = np.random.default_rng([seed, index, 1])
    framed = rng.random() < 0.1
    scale = float(rng.uniform(0.74, 0.96)) if framed else 1.0
    return Wear(
        scale=scale,
        bars=int(rng.choice((0, 0, 128, 255))),
        dx=float(rng.uniform(0.3, 0.7)) * (1 - scale),
        dy=float(rng.uniform(0.3, 0.7)) * (1 - scale),
        resized=int(rng.integers(140, 300)) if rng.random() < 0.2 else SIDE,
        jpeg=int(rng.integers(45, 93)) if rng.random() < 0.33 else None,
    )


def framed(scene: Scene, wear: Wear) -> Scene:
    """The same scene with its things where `wear` moves them: the truth of the worn picture."""

    def moved(thing: Thing) -> Thing:
        s = wear.scale
        return replace(
            thing, x=wear.dx + thing.x * s, y=wear.dy + thing.y * s, width=thing.width * s, height=thing.height * s
        )

    horizon = wear.dy + scene.backdrop.horizon * wear.scale
    return Scene(tuple(moved(thing) for thing in scene.things), replace(scene.backdrop, horizon=horizon))


def worn(picture: Image.Image, wear: Wear) -> Image.Image:
    """Apply wear to a square picture; its size stays."""
    side = picture.width
    if wear.scale < 1:
        inner = picture.resize((round(side * wear.scale),) * 2, Image.Resampling.BICUBIC)
        picture = Image.new("RGB", (side, side), (wear.bars,) * 3)
        picture.paste(inner, (round(wear.dx * side), round(wear.dy * side)))
    if wear.resized != side:
        picture = picture.resize((wear.resized,) * 2, Image.Resampling.BICUBIC).resize(
            (side, side), Image.Resampling.BICUBIC
        )
    if wear.jpeg is not None:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=wear.jpeg)
        picture = Image.open(file).convert("RGB")
    return picture


def labels(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Owner and fringe of each patch, both (patches,), and the stored things, (MOST_THINGS, FIELDS)."""
    shares = coverage(scene)
    rows = (np.arange(GRID * GRID) // GRID + 0.5) / GRID
    owners = np.where(rows < scene.backdrop.horizon, SKY, GROUND).astype(np.uint8)
    top, owner = shares.max(axis=0), shares.argmax(axis=0).astype(np.uint8)
    owners[top >= OWNED] = owner[top >= OWNED]
    things = np.full((MOST_THINGS, FIELDS), -1, dtype=np.float32)
    for number, thing in enumerate(scene.things):
        if not (owners == number).any():
            owners[shares[number].argmax()] = number
        area = shares[number].mean()
        kind, colour = CLASSES.index(thing.kind), COLOURS.index(thing.colour)
        things[number] = kind, colour, thing.x, thing.y, area, thing.strokes
    fringe = (top >= TOUCHED) & (owners >= SKY)
    return owners, fringe.astype(np.uint8), things


def strokes(scene: Scene, owners: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Of each patch that belongs to a numbered sign, how much lies in the place of each stroke, (patches, COUNT).

    In percent; below zero where the stroke is not painted, zero in all patches that show no part of a number.
    """
    found = np.zeros((GRID * GRID, COUNT), dtype=np.int8)
    for number, thing in enumerate(scene.things):
        if thing.strokes:
            painted = [1 if thing.strokes >> stroke & 1 else -1 for stroke in range(COUNT)]
            shares = np.round(100 * stroke_coverage(thing).T * painted).astype(np.int8)
            found[owners == number] = shares[owners == number]
    return found


def _shapes(count: int) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {
        "pixels": (np.uint8, (count, SIDE, SIDE, 3)),
        "owners": (np.uint8, (count, GRID * GRID)),
        "fringe": (np.uint8, (count, GRID * GRID)),
        "things": (np.float32, (count, MOST_THINGS, FIELDS)),
        "strokes": (np.int8, (count, GRID * GRID, COUNT)),
    }


def open_pictures(folder: Path, count: int, mode: str = "r") -> Pictures:
    """Map the arrays of `count` pictures; mode "w+" creates them, "r+" writes into existing ones."""
    arrays = {
        name: np.memmap(folder / f"{name}.bin", dtype=dtype, mode=mode, shape=shape)  # type: ignore[call-overload]
        for name, (dtype, shape) in _shapes(count).items()
    }
    return Pictures(**arrays)


def _draw_share(folder: Path, count: int, scenes: Scenes, first: int, step: int) -> None:
    pictures = open_pictures(folder, count, "r+")
    for index in range(first, count, step):
        scene, wear = scenes.scene(index), wear_of(scenes.seed, index)
        pictures.pixels[index] = np.asarray(worn(render(scene), wear))
        seen = framed(scene, wear)
        owners, pictures.fringe[index], pictures.things[index] = labels(seen)
        pictures.owners[index], pictures.strokes[index] = owners, strokes(seen, owners)


def draw_pictures(folder: Path, count: int, scenes: Scenes, processes: int = 2) -> Pictures:
    """Draw scenes 0 .. count-1 into `folder` (115 kB each), unless they are there already."""
    done = folder / "done"
    if not (done.exists() and done.read_text() == f"{scenes.seed} {count}"):
        folder.mkdir(parents=True, exist_ok=True)
        open_pictures(folder, count, "w+")
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(target=_draw_share, args=(folder, count, scenes, i, processes)) for i in range(processes)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise RuntimeError(f"drawing pictures into {folder} failed")
        done.write_text(f"{scenes.seed} {count}")
        log.info("drew %d pictures into %s", count, folder)
    return open_pictures(folder, count)
