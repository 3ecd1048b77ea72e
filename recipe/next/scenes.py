"""Wide and tall scenes, drawn at the resolution of tiles: what is small shows in a tile alone.

Three sizes of things, by their longer side in pixels of the picture. *Small* ones are a patch or two of a tile and
less than a patch of the thumbnail. *Signs* have a number, which is legible in a tile and not in the thumbnail. *Large*
ones lie across the tiles' borders, and only the thumbnail shows them whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recipe.digits import DIGITS
from recipe.drawing import SIDE
from recipe.names import ASPECT, CLASSES, COLOURS
from recipe.scenes import GROUNDS, IN_THE_SKY, MOST_THINGS, SKIES, Backdrop, Pattern, Scene, Thing, paint, touch
from recipe.shapes import NUMBERED

Rng = np.random.Generator

SMALL, SIGN, LARGE = (15.0, 25.0), (54.0, 74.0), (64.0, 124.0)  # pixels of a tile
SMALL_REPEATED = (18.0, 26.0)
LARGE_IN_THUMBNAIL = 18.0  # least width and height there, in its own pixels
# Tiles down and across, how often, and the range of the longer side over the shorter.
# A thumbnail is squeezed by 1.6 and more one way, which tells it from a tile.
FORMS = (((1, 2), 0.56, (1.6, 2.0)), ((1, 3), 0.22, (2.05, 3.0)), ((2, 2), 0.22, (1.0, 1.7)))
WORN = ("stripes", "dots", "checks", "gradient", "noise")


@dataclass(frozen=True)
class WideScene:
    """A scene in the upper left `width` x `height` pixels of a square, whose side is the longer of the two."""

    scene: Scene  # lengths in sides of the square
    width: int
    height: int
    large: tuple[bool, ...]  # of each thing: shown whole by the thumbnail

    @property
    def side(self) -> int:
        """Of the square."""
        return max(self.width, self.height)


def compose_wide(seed: int, index: int) -> WideScene:
    """Scene number `index` of the series `seed`: always the same."""
    rng = np.random.default_rng([seed, index, 11])
    width, height = _size(rng)
    side = max(width, height)
    backdrop = _backdrop(rng, height / side)
    things: list[tuple[Thing, bool]] = []
    for kind, colour, pixels, is_large in _cast(rng, width, height):
        thing = _place(
            rng,
            _look(rng, kind, colour, pixels / side),
            backdrop.horizon,
            (width / side, height / side),
            [other for other, _ in things],
        )
        if thing is not None:
            things.append((thing, is_large))
    things.sort(key=lambda pair: pair[0].y + pair[0].extent[1])
    return WideScene(Scene(tuple(t for t, _ in things), backdrop), width, height, tuple(large for _, large in things))


def _size(rng: Rng) -> tuple[int, int]:
    """Width and height in pixels: one side fills the mosaic, so that nothing is resampled."""
    (rows, columns), _, (least, most) = FORMS[int(rng.choice(len(FORMS), p=[share for _, share, _ in FORMS]))]
    ratio = float(np.exp(rng.uniform(np.log(least), np.log(most))))
    size = (round(SIDE * rows * ratio), SIDE * rows) if rows == 1 else (SIDE * columns, round(SIDE * columns / ratio))
    return size if rng.random() < 0.5 else size[::-1]


def _backdrop(rng: Rng, bottom: float) -> Backdrop:
    horizon = float(rng.uniform(0.3, 0.6)) * bottom
    return Backdrop(
        sky=SKIES[rng.integers(len(SKIES))],
        ground=GROUNDS[rng.integers(len(GROUNDS))],
        horizon=horizon,
        hills=int(rng.integers(0, 3)),
        clouds=int(rng.integers(0, 5)),
        road=float(rng.uniform(horizon + 0.12 * bottom, 0.92 * bottom)) if rng.random() < 0.25 else None,
        pebbles=int(rng.integers(0, 26)),
        noise=float(rng.uniform(0.5, 5.0)),
        gain=float(rng.uniform(0.86, 1.1)),
        seed=int(rng.integers(2**31)),
        clutter=int(rng.integers(0, 6)),
    )


def _cast(rng: Rng, width: int, height: int) -> list[tuple[str, str, float, bool]]:
    """Class, colour, longer side in pixels and whether it is large; biggest first.

    A class is large or not, all of its things alike, so that what is counted is counted in one view.
    """
    kinds = [str(kind) for kind in rng.permutation(np.array(CLASSES)) if kind != "sign"]
    colours = [str(colour) for colour in rng.permutation(np.array(COLOURS))]
    cast = [
        ("sign", colours[i], float(rng.uniform(*SIGN)), False) for i in range(rng.choice(4, p=(0.1, 0.5, 0.3, 0.1)))
    ]
    some = int(rng.choice((2, 3))) if rng.random() < 0.45 else 1
    for times in (some, *(1,) * int(rng.choice((1, 2)))):
        kind = kinds.pop()
        cast += [(kind, _any(rng), _large(rng, kind, width, height), True) for _ in range(times)]
    if rng.random() < 0.6:
        kind = kinds.pop()
        cast += [(kind, _any(rng), float(rng.uniform(*SMALL_REPEATED)), False) for _ in range(rng.choice((2, 3, 4)))]
    total = max(len(cast), int(rng.integers(7, MOST_THINGS + 1)))
    while kinds and len(cast) < total:
        cast.append((kinds.pop(), _any(rng), float(rng.uniform(*SMALL)), False))
    return sorted(cast[:MOST_THINGS], key=lambda entry: -entry[2])


def _any(rng: Rng) -> str:
    return str(rng.choice(COLOURS))


def _large(rng: Rng, kind: str, width: int, height: int) -> float:
    """Longer side of a large thing: wide and high enough in the thumbnail, which squeezes the picture to a square."""
    aspect = ASPECT.get(kind, 1.0)
    across, down = min(1.0, aspect), min(1.0, 1 / aspect)  # of the longer side
    least = LARGE_IN_THUMBNAIL / SIDE * max(width / across, height / down)
    low = max(LARGE[0], least)
    return float(rng.uniform(low, max(LARGE[1], low + 20)))


def _look(rng: Rng, kind: str, colour: str, longer: float) -> Thing:
    """A thing without a place."""
    is_sign = kind == "sign"
    aspect = ASPECT.get(kind, 1.0) * float(rng.uniform(0.92, 1.1))
    width, height = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
    pattern = None
    if rng.random() < 0.3:
        strength = float(rng.uniform(0.12, 0.3)) * (0.6 if is_sign else 1.0)
        style = WORN[rng.integers(len(WORN))]
        pattern = Pattern(
            style,
            longer * float(rng.uniform(0.2, 0.6)),
            float(rng.uniform(-90, 90)),
            strength,
            int(rng.integers(2**31)),
        )
    return Thing(
        kind=kind,
        colour=colour,
        rgb=paint(rng, colour),
        x=0.0,
        y=0.0,
        width=width,
        height=height,
        angle=float(rng.uniform(-7, 7)) if rng.random() < 0.4 else 0.0,
        flip=bool(rng.random() < 0.5) and not is_sign,
        variant=int(rng.integers(2)) + (NUMBERED if is_sign else 0),
        pattern=pattern,
        strokes=DIGITS[rng.integers(len(DIGITS))] if is_sign else 0,
    )


def _place(rng: Rng, look: Thing, horizon: float, corner: tuple[float, float], others: list[Thing]) -> Thing | None:
    """Put a thing inside the picture where it touches no other one; None where 60 tries do not find a place."""
    half_x, half_y = look.extent
    right, bottom = corner
    if 2 * half_x >= right or 2 * half_y >= bottom:
        return None
    plausible = rng.random() < 0.65
    for _ in range(60):
        low, high = half_y, bottom - half_y
        if plausible and look.kind in IN_THE_SKY:
            high = max(low, min(high, horizon))
        elif plausible:
            low = min(max(low, horizon - half_y * 0.8), high)
        thing = replace(look, x=float(rng.uniform(half_x, right - half_x)), y=float(rng.uniform(low, high)))
        if not any(touch(thing, other) for other in others):
            return thing
    return None
