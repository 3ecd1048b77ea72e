"""Scenes of the demo: which things stand where, before what, all drawn from one seed.

Lengths are fractions of the picture's side, so that a scene has no resolution: the model sees it at 192 pixels and
the sample pictures are drawn at 768. A scene is its own ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipe.names import ASPECT, CLASSES, COLOURS, RGB

Rgb = tuple[int, int, int]

SKIES: tuple[tuple[Rgb, Rgb], ...] = (
    ((112, 176, 232), (206, 230, 246)),
    ((150, 200, 238), (240, 244, 238)),
    ((132, 158, 214), (244, 210, 190)),
    ((170, 190, 206), (222, 228, 230)),
    ((96, 150, 206), (178, 214, 236)),
    ((190, 176, 214), (250, 220, 206)),
    ((138, 200, 210), (222, 240, 232)),
)
GROUNDS: tuple[tuple[Rgb, Rgb], ...] = (
    ((150, 196, 122), (112, 164, 92)),
    ((176, 206, 132), (134, 178, 100)),
    ((222, 204, 160), (200, 176, 128)),
    ((170, 172, 176), (134, 138, 144)),
    ((196, 184, 168), (164, 148, 132)),
    ((226, 232, 238), (200, 210, 222)),
    ((136, 182, 194), (98, 150, 170)),
    ((206, 180, 150), (178, 146, 116)),
    ((168, 190, 160), (126, 156, 128)),
)
IN_THE_SKY = frozenset({"bird", "kite"})
PIXEL = 1 / 192
GAP = 2.5 * PIXEL  # least distance between the bounding boxes of two things
MOST_THINGS = 12


@dataclass(frozen=True)
class Pattern:
    """A texture: how it is made, how coarse it is, its direction and how strongly it shows."""

    style: str  # one of textures.STYLES
    size: float  # period, as a fraction of the picture
    angle: float = 0.0  # degrees
    strength: float = 0.25  # share of the second tone in the first
    seed: int = 0


@dataclass(frozen=True)
class Thing:
    """One object: its class and colour name, its paint, and its upright box before tilting."""

    kind: str
    colour: str
    rgb: Rgb
    x: float  # centre
    y: float
    width: float
    height: float
    angle: float = 0.0  # degrees
    flip: bool = False
    variant: int = 0
    pattern: Pattern | None = None  # of its own paint
    strokes: int = 0  # of what is painted on it: bits of digits.STROKES

    @property
    def extent(self) -> tuple[float, float]:
        """Half width and half height of the axis-parallel box around the tilted thing."""
        a = np.deg2rad(self.angle)
        c, s = abs(float(np.cos(a))), abs(float(np.sin(a)))
        return (c * self.width + s * self.height) / 2, (s * self.width + c * self.height) / 2


@dataclass(frozen=True)
class Backdrop:
    """Everything behind the things. `seed` decides hills, clouds, pebbles and noise."""

    sky: tuple[Rgb, Rgb]
    ground: tuple[Rgb, Rgb]
    horizon: float
    hills: int = 1
    clouds: int = 2
    road: float | None = None  # y of its middle
    pebbles: int = 12
    noise: float = 2.0  # sigma in grey levels
    gain: float = 1.0
    seed: int = 0
    textures: tuple[Pattern, Pattern] | None = None  # of sky and ground
    clutter: int = 0  # shapes in the things' colours that are no things


@dataclass(frozen=True)
class Scene:
    """Things, back to front, and what is behind them."""

    things: tuple[Thing, ...]
    backdrop: Backdrop


def compose(seed: int, index: int) -> Scene:
    """Scene number `index` of the series `seed`: always the same, on every machine."""
    rng = np.random.default_rng([seed, index])
    backdrop = _backdrop(rng)
    things: list[Thing] = []
    for kind, longer_px in _cast(rng):
        thing = _place(rng, kind, longer_px, backdrop.horizon, things)
        if thing is not None:
            things.append(thing)
    return Scene(tuple(sorted(things, key=lambda thing: thing.y + thing.extent[1])), backdrop)


def _backdrop(rng: np.random.Generator) -> Backdrop:
    horizon = float(rng.uniform(0.3, 0.62))
    return Backdrop(
        sky=SKIES[rng.integers(len(SKIES))],
        ground=GROUNDS[rng.integers(len(GROUNDS))],
        horizon=horizon,
        hills=int(rng.integers(0, 3)),
        clouds=int(rng.integers(0, 5)),
        road=float(rng.uniform(horizon + 0.12, 0.92)) if rng.random() < 0.35 else None,
        pebbles=int(rng.integers(0, 26)),
        noise=float(rng.uniform(0.5, 5.0)),
        gain=float(rng.uniform(0.86, 1.1)),
        seed=int(rng.integers(2**31)),
    )


def _cast(rng: np.random.Generator) -> list[tuple[str, float]]:
    """Classes with their longer side in 192nds, biggest first.

    Most scenes repeat one or two classes, for counting; those are neither big nor tiny. All others occur once, so
    that "the car" means one thing.
    """
    kinds = list(rng.permutation(np.array(CLASSES)))
    cast = [(str(kinds.pop()), float(rng.uniform(50, 82))) for _ in range(rng.choice((1, 2), p=(0.6, 0.4)))]
    cast += [(str(kinds.pop()), float(rng.uniform(29, 44))) for _ in range(rng.choice((1, 2)))]
    for _ in range(rng.choice((0, 1, 2), p=(0.25, 0.5, 0.25))):
        kind = str(kinds.pop())
        cast += [(kind, float(rng.uniform(20, 34))) for _ in range(rng.choice((2, 3, 4), p=(0.3, 0.3, 0.4)))]
    total = max(len(cast), int(rng.integers(6, MOST_THINGS)))
    while kinds and len(cast) < total:
        cast.append((str(kinds.pop()), float(rng.uniform(15, 25))))
    return sorted(cast[:MOST_THINGS], key=lambda pair: -pair[1])


def _place(
    rng: np.random.Generator, kind: str, longer_px: float, horizon: float, others: Sequence[Thing]
) -> Thing | None:
    """Put a thing where it touches no other one; None where 60 tries do not find a place."""
    aspect = ASPECT.get(kind, 1.0) * float(rng.uniform(0.88, 1.14))
    longer = longer_px * PIXEL
    width, height = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
    angle = float(rng.uniform(-9, 9)) if rng.random() < 0.4 else 0.0
    colour = str(rng.choice(COLOURS))
    look = (kind, colour, paint(rng, colour))
    flip, variant = bool(rng.random() < 0.5), int(rng.integers(2))
    plausible = rng.random() < 0.75
    for _ in range(60):
        thing = Thing(*look, 0.0, 0.0, width, height, angle, flip, variant)
        half_x, half_y = thing.extent
        low, high = half_y, 1 - half_y
        if plausible and kind in IN_THE_SKY:
            high = max(low + 0.01, min(high, horizon))
        elif plausible:
            low = min(max(low, horizon - half_y * 0.8), high - 0.01)
        x, y = float(rng.uniform(half_x, 1 - half_x)), float(rng.uniform(low, high))
        thing = Thing(*look, x, y, width, height, angle, flip, variant)
        if not any(touch(thing, other) for other in others):
            return thing
    return None


def touch(a: Thing, b: Thing) -> bool:
    """Whether two things are nearer than GAP."""
    (ax, ay), (bx, by) = a.extent, b.extent
    return abs(a.x - b.x) < ax + bx + GAP and abs(a.y - b.y) < ay + by + GAP


def paint(rng: np.random.Generator, colour: str) -> Rgb:
    """A shade of a named colour: each channel moved by up to 15, the whole by up to 7 %."""
    channels = (np.array(RGB[colour]) + rng.integers(-15, 16, 3)) * rng.uniform(0.93, 1.07)
    red, green, blue = np.clip(channels, 0, 255).astype(int)
    return int(red), int(green), int(blue)
