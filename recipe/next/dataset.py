"""Visual tokens of wide scenes on disk, crop by crop, with what each patch shows."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recipe.dataset import FIELDS
from recipe.digits import COUNT
from recipe.drawing import SIDE
from recipe.network import HIDDEN
from recipe.next.mosaic import MOST_CROPS, crops_of, image_processor, mosaic_of
from recipe.next.scenes import compose_wide
from recipe.next.views import coverage, draw, hidden, labels, strokes
from recipe.scenes import MOST_THINGS
from recipe.vision_losses import PATCHES
from recipe.vision_training import JITTER, Eyes, load_eyes, normalised

log = logging.getLogger(__name__)

PICTURES = "pictures"  # folder of a store
CELLS = MOST_CROPS * PATCHES  # files have holes where a picture has fewer crops, which take no place on disk


@dataclass(frozen=True)
class Store:
    """Arrays over n pictures."""

    pixels: NDArray[np.uint8]  # (n, MOST_CROPS, SIDE, SIDE, 3)
    tokens: NDArray[np.float16]  # (n, CELLS, HIDDEN)
    owners: NDArray[np.uint8]  # (n, CELLS): number of a thing, SKY or GROUND
    fringe: NDArray[np.uint8]  # (n, CELLS)
    hidden: NDArray[np.uint8]  # (n, CELLS): 1 where a thing shows whose home is the other view
    strokes: NDArray[np.int8]  # (n, CELLS, COUNT)
    things: NDArray[np.float32]  # (n, MOST_THINGS, FIELDS): places from the picture's middle, see views.labels
    large: NDArray[np.uint8]  # (n, MOST_THINGS): 1 where the thumbnail shows the thing whole
    size: NDArray[np.int32]  # (n, 2) height and width in pixels, 0 where the picture is not there yet

    def __len__(self) -> int:
        return len(self.size)


_SHAPES: dict[str, tuple[type, tuple[int, ...]]] = {
    "pixels": (np.uint8, (MOST_CROPS, SIDE, SIDE, 3)),
    "tokens": (np.float16, (CELLS, HIDDEN)),
    "owners": (np.uint8, (CELLS,)),
    "fringe": (np.uint8, (CELLS,)),
    "hidden": (np.uint8, (CELLS,)),
    "strokes": (np.int8, (CELLS, COUNT)),
    "things": (np.float32, (MOST_THINGS, FIELDS)),
    "large": (np.uint8, (MOST_THINGS,)),
    "size": (np.int32, (2,)),
}


def open_store(folder: Path, count: int, mode: str = "r") -> Store:
    """Map the arrays of `count` pictures; mode "r+" makes them where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, (dtype, shape) in _SHAPES.items():
        file = folder / f"{name}.bin"
        if mode == "r+" and not file.exists():
            with file.open("wb") as new:
                new.truncate(count * int(np.prod(shape)) * np.dtype(dtype).itemsize)
        arrays[name] = np.memmap(file, dtype=dtype, mode=mode, shape=(count, *shape))  # type: ignore[call-overload]
    return Store(**arrays)


@torch.no_grad()
def see(eyes: Eyes, crops: NDArray[np.uint8]) -> Tensor:
    """Visual tokens (crops, PATCHES, hidden) of crops (crops, SIDE, SIDE, 3).

    The projector runs in float32: bfloat16 would bring back a little of the places that were projected out.
    """
    with torch.autocast("cpu", torch.bfloat16):
        features = eyes.vision(normalised(torch.from_numpy(np.array(crops))))[0]
    tokens: Tensor = eyes.projector(features[:, 1:].float())
    return tokens


def worn(picture: Image.Image, seed: int, index: int) -> Image.Image:
    """The picture at its own brightness; every third one recompressed."""
    rng = np.random.default_rng([seed, index, 12])
    gain = float(rng.uniform(1 - JITTER, 1 + JITTER))
    picture = Image.fromarray(np.clip(np.asarray(picture) * gain, 0, 255).astype(np.uint8))
    if rng.random() >= 1 / 3:
        return picture
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(45, 93)))
    return Image.open(file).convert("RGB")


def draw_store(rank: int, world: int, folder: Path, count: int, seed: int, as_drawn: bool = False) -> None:
    """Draw the scenes of `seed` that are not in `folder` yet; unless `as_drawn`, with some wear."""
    store, images = open_store(folder / PICTURES, count, "r+"), image_processor()
    for index in range(rank, count, world):
        if store.size[index, 0]:
            continue
        wide = compose_wide(seed, index)
        shares = coverage(wide)
        owners, fringe, things = labels(wide, shares)
        store.hidden[index, : len(owners)] = hidden(wide, owners, shares)
        picture = draw(wide) if as_drawn else worn(draw(wide), seed, index)
        crops, cells, number = crops_of(picture, images), len(owners), len(wide.large)
        store.pixels[index, : len(crops)] = crops
        store.owners[index, :cells], store.fringe[index, :cells] = owners, fringe
        store.strokes[index, :cells] = strokes(wide, owners)
        store.things[index], store.large[index, :number] = things, wide.large
        store.size[index] = wide.height, wide.width  # last: the picture is there
        if rank == 0 and index // world % 500 == 0:
            log.info("drew %d of %d pictures", index, count)


def encode_store(rank: int, world: int, folder: Path, count: int, eyes_file: Path) -> None:
    """Write the visual tokens of all pictures."""
    store, eyes = open_store(folder / PICTURES, count, "r+"), load_eyes(eyes_file).eval()
    for index in range(rank, count, world):
        crops = mosaic_of(*(int(side) for side in store.size[index])).crops
        store.tokens[index, : crops * PATCHES] = see(eyes, store.pixels[index, :crops]).flatten(0, 1).numpy()
