"""Scenes of the hard world: textures, clutter, things that look alike, and signs with numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recipe.digits import COUNT, DIGITS
from recipe.names import ASPECT, CLASSES, COLOURS
from recipe.scenes import (
    GROUNDS,
    IN_THE_SKY,
    MOST_THINGS,
    PIXEL,
    SKIES,
    Backdrop,
    Pattern,
    Rgb,
    Scene,
    Thing,
    paint,
    touch,
)
from recipe.shapes import NUMBERED

Rng = np.random.Generator

BEHIND = ("stripes", "checks", "bricks", "ripples", "noise", "gradient")
BELOW = ("stripes", "checks", "bricks", "blades", "ripples", "noise", "dots")
ON_THINGS = ("stripes", "dots", "checks", "gradient", "noise")
# Walls and floors that plain scenes do not have.
MORE_SKIES: tuple[tuple[Rgb, Rgb], ...] = (
    ((188, 142, 122), (204, 162, 140)),
    ((120, 128, 140), (168, 172, 178)),
    ((206, 196, 164), (226, 218, 190)),
    ((86, 104, 130), (140, 156, 178)),
)
MORE_GROUNDS: tuple[tuple[Rgb, Rgb], ...] = (
    ((104, 146, 92), (72, 116, 66)),
    ((150, 118, 96), (126, 96, 78)),
    ((120, 124, 132), (92, 96, 104)),
    ((202, 176, 128), (176, 144, 100)),
)


def compose_hard(seed: int, index: int, scrambled: float = 0.0) -> Scene:
    """Scene number `index` of the series `seed`; `scrambled` of its numbers are any strokes instead of a digit.

    Scrambled ones are for training the vision part: a patch must not learn to guess strokes that it does not show.
    """
    rng = np.random.default_rng([seed, index, 7])
    backdrop = _backdrop(rng)
    things: list[Thing] = []
    for kind, longer_px, colour in _cast(rng):
        thing = _place(rng, kind, longer_px, colour, backdrop.horizon, things)
        if thing is not None:
            things.append(thing)
    marks = np.random.default_rng([seed, index, 8])
    things = [_scrambled(marks, thing, scrambled) for thing in things]
    return Scene(tuple(sorted(things, key=lambda thing: thing.y + thing.extent[1])), backdrop)


def _scrambled(rng: Rng, thing: Thing, share: float) -> Thing:
    if not thing.strokes or rng.random() >= share:
        return thing
    return replace(thing, strokes=int(rng.integers(1, 1 << COUNT)))


def _backdrop(rng: Rng) -> Backdrop:
    horizon = float(rng.uniform(0.3, 0.6))
    skies, grounds = SKIES + MORE_SKIES, GROUNDS + MORE_GROUNDS
    return Backdrop(
        sky=skies[rng.integers(len(skies))],
        ground=grounds[rng.integers(len(grounds))],
        horizon=horizon,
        hills=int(rng.integers(0, 2)),
        clouds=int(rng.integers(0, 3)),
        road=float(rng.uniform(horizon + 0.12, 0.92)) if rng.random() < 0.15 else None,
        pebbles=int(rng.integers(0, 30)),
        noise=float(rng.uniform(2.0, 9.0)),
        gain=float(rng.uniform(0.86, 1.1)),
        seed=int(rng.integers(2**31)),
        textures=(_texture(rng, BEHIND, (0.04, 0.16)), _texture(rng, BELOW, (0.035, 0.13))),
        clutter=int(rng.integers(5, 19)),
    )


def _texture(rng: Rng, styles: tuple[str, ...], sizes: tuple[float, float]) -> Pattern:
    style = styles[rng.integers(len(styles))]
    turned = style in {"stripes", "checks", "gradient"}
    angle = float(rng.uniform(-90, 90)) if turned else float(rng.uniform(-6, 6))
    return Pattern(style, float(rng.uniform(*sizes)), angle, float(rng.uniform(0.12, 0.42)), int(rng.integers(2**31)))


def _cast(rng: Rng) -> list[tuple[str, float, str | None]]:
    """Class, longer side in 192nds and, where it is decided, colour; biggest first.

    Up to three signs, mostly a few things of one class in different colours and a few classes in one, and others.
    """
    kinds = [str(kind) for kind in rng.permutation(np.array(CLASSES)) if kind != "sign"]
    colours = [str(colour) for colour in rng.permutation(np.array(COLOURS))]
    signs = int(rng.choice((0, 1, 2, 3), p=(0.1, 0.4, 0.3, 0.2)))
    cast: list[tuple[str, float, str | None]] = [
        ("sign", float(rng.uniform(58, 84 - 5 * signs)), colours[i]) for i in range(signs)
    ]
    if rng.random() < 0.7:
        kind = kinds.pop()
        some = rng.permutation(np.array(COLOURS))
        cast += [(kind, float(rng.uniform(22, 33)), str(some[i])) for i in range(rng.choice((2, 3, 4)))]
    if rng.random() < 0.6:
        colour = colours[int(rng.integers(len(colours)))]
        cast += [(kinds.pop(), float(rng.uniform(20, 40)), colour) for _ in range(rng.choice((2, 3)))]
    if rng.random() < 0.6 or signs == 0:
        cast.append((kinds.pop(), float(rng.uniform(50, 76)), None))
    total = max(len(cast), int(rng.integers(6, MOST_THINGS)))
    while kinds and len(cast) < total:
        cast.append((kinds.pop(), float(rng.uniform(18, 30)), None))
    return sorted(cast[:MOST_THINGS], key=lambda entry: -entry[1])


def _look(rng: Rng, kind: str, longer_px: float, colour: str) -> Thing:
    """A thing without a place."""
    is_sign = kind == "sign"
    aspect = ASPECT.get(kind, 1.0) * float(rng.uniform(0.92, 1.1))
    longer = longer_px * PIXEL
    width, height = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
    pattern = None
    if rng.random() < 0.7:
        style = ON_THINGS[rng.integers(len(ON_THINGS))]
        size = (
            float(rng.uniform(0.025, 0.06)) if style in {"stripes", "dots", "checks"} else float(rng.uniform(0.1, 0.4))
        )
        strength = float(rng.uniform(0.15, 0.4)) * (0.6 if is_sign else 1.0)
        pattern = Pattern(style, size, float(rng.uniform(-90, 90)), strength, int(rng.integers(2**31)))
    return Thing(
        kind=kind,
        colour=colour,
        rgb=paint(rng, colour),
        x=0.0,
        y=0.0,
        width=width,
        height=height,
        angle=float(rng.uniform(-6, 6)) if rng.random() < 0.4 else 0.0,
        flip=bool(rng.random() < 0.5) and not is_sign,
        variant=int(rng.integers(2)) + (NUMBERED if is_sign else 0),
        pattern=pattern,
        strokes=DIGITS[rng.integers(len(DIGITS))] if is_sign else 0,
    )


def _place(
    rng: Rng, kind: str, longer_px: float, colour: str | None, horizon: float, others: list[Thing]
) -> Thing | None:
    """Put a thing where it touches no other one; None where 60 tries do not find a place."""
    look = _look(rng, kind, longer_px, colour or str(rng.choice(COLOURS)))
    half_x, half_y = look.extent
    plausible = rng.random() < 0.6
    for _ in range(60):
        low, high = half_y, 1 - half_y
        if plausible and kind in IN_THE_SKY:
            high = max(low + 0.01, min(high, horizon))
        elif plausible and kind != "sign":
            low = min(max(low, horizon - half_y * 0.8), high - 0.01)
        thing = replace(look, x=float(rng.uniform(half_x, 1 - half_x)), y=float(rng.uniform(low, high)))
        if not any(touch(thing, other) for other in others):
            return thing
    return None
