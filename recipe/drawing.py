"""Draw a scene with Pillow, and say which patch shows which thing.

Drawn at three times the wanted size and averaged down, which is Pillow's cheapest antialiasing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from recipe.clutter import draw_clutter
from recipe.digits import stroke_shapes
from recipe.geometry import Points, ellipse
from recipe.scenes import Backdrop, Pattern, Rgb, Scene, Thing
from recipe.shapes import parts_of
from recipe.textures import field

SIDE = 192  # pixels that the model sees
GRID = 16  # patches along a side
OVERSAMPLE = 3
INK_TURNS = 120  # a sign brighter than this, of 255, has dark ink
TRUTH_SIDE = 384  # resolution of the coverage map: 24 x 24 samples a patch


def render(scene: Scene, side: int = SIDE) -> Image.Image:
    """The scene as an RGB picture of `side` x `side` pixels."""
    canvas = _sky_and_ground(scene.backdrop, side * OVERSAMPLE)
    draw = ImageDraw.Draw(canvas, "RGBA")
    _scenery(draw, scene.backdrop, side * OVERSAMPLE)
    if scene.backdrop.clutter:
        draw_clutter(draw, scene.backdrop, side * OVERSAMPLE)
    for thing in scene.things:
        _shadow(draw, thing, scene.backdrop.horizon, side * OVERSAMPLE)
    for thing in scene.things:
        _draw_thing(canvas, draw, thing, side * OVERSAMPLE)
    return _film(canvas.reduce(OVERSAMPLE), scene.backdrop)


def coverage(scene: Scene) -> NDArray[np.float32]:
    """Fraction of each patch that each thing covers, shape (things, GRID * GRID), patches row by row."""
    stamp = Image.new("L", (TRUTH_SIDE, TRUTH_SIDE), 0)
    draw = ImageDraw.Draw(stamp)
    for number, thing in enumerate(scene.things, start=1):
        for part in parts_of(thing.kind, thing.variant):
            draw.polygon(pixels_of(part.points, thing, TRUTH_SIDE), fill=number)
    step = TRUTH_SIDE // GRID
    patches = np.asarray(stamp).reshape(GRID, step, GRID, step).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    shares = [(patches == number).mean(axis=1) for number in range(1, len(scene.things) + 1)]
    return np.array(shares, dtype=np.float32).reshape(len(scene.things), GRID * GRID)


def stroke_coverage(thing: Thing) -> NDArray[np.float32]:
    """Fraction of each patch that lies in the place of each stroke of a numbered sign, (strokes, GRID * GRID)."""
    step, shares = TRUTH_SIDE // GRID, []
    for shape in stroke_shapes(thing.variant):
        stamp = Image.new("L", (TRUTH_SIDE, TRUTH_SIDE), 0)
        ImageDraw.Draw(stamp).polygon(pixels_of(shape, thing, TRUTH_SIDE), fill=1)
        shares.append(np.asarray(stamp).reshape(GRID, step, GRID, step).mean(axis=(1, 3), dtype=np.float32).ravel())
    return np.stack(shares)


def pixels_of(points: Points, thing: Thing, side: int) -> list[tuple[float, float]]:
    """Unit-box points of a thing -> pixel coordinates."""
    local = points * np.array([-thing.width if thing.flip else thing.width, thing.height])
    a = np.deg2rad(thing.angle)
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    placed = (local @ turn + np.array([thing.x, thing.y])) * side
    return [(float(x), float(y)) for x, y in placed]


def _mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`share` of b in a."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _palette(thing: Thing) -> dict[str, Rgb]:
    body = thing.rgb
    dark = thing.colour == "black"
    return {
        "body": body,
        "shade": _mix(body, (70, 74, 96), 0.2) if thing.colour == "white" else _mix(body, (0, 0, 0), 0.2),
        "light": _mix(body, (255, 255, 255), 0.14 if dark else 0.34),
        "accent": _mix(body, (90, 96, 112), 0.55) if thing.colour == "white" else _mix(body, (255, 255, 255), 0.75),
        "outline": _mix(body, (0, 0, 0), 0.55),
    }


def _draw_thing(canvas: Image.Image, draw: ImageDraw.ImageDraw, thing: Thing, side: int) -> None:
    """All outlines first, then all fills, so that overlapping parts share one contour."""
    palette = _palette(thing)
    shapes = [(part, pixels_of(part.points, thing, side)) for part in parts_of(thing.kind, thing.variant)]
    pen = max(2, round(0.007 * side + 0.03 * min(thing.width, thing.height) * side))
    for part, points in shapes:
        if part.outlined:
            draw.line([*points, points[0], points[1]], fill=palette["outline"], width=pen, joint="curve")
    for part, points in shapes:
        draw.polygon(points, fill=palette.get(part.paint, part.paint))
        if thing.pattern is not None and part.paint == "body":
            _fill(canvas, points, thing, thing.pattern, side)
    if thing.strokes:
        ink = (30, 30, 36) if np.dot(thing.rgb, (0.3, 0.59, 0.11)) > INK_TURNS else (248, 248, 244)
        for number, shape in enumerate(stroke_shapes(thing.variant)):
            if thing.strokes >> number & 1:
                draw.polygon(pixels_of(shape, thing, side), fill=ink)


def _fill(canvas: Image.Image, points: list[tuple[float, float]], thing: Thing, pattern: Pattern, side: int) -> None:
    """Cover a polygon with a texture of the thing's own paint."""
    corners = np.array(points)
    left, top = np.floor(corners.min(axis=0)).astype(int).tolist()
    right, bottom = (np.ceil(corners.max(axis=0)).astype(int) + 1).tolist()
    mask = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=255)
    plain = {"white": (104, 112, 130), "black": (170, 170, 178)}
    second = plain.get(thing.colour, (0, 0, 0) if pattern.seed % 2 else (255, 255, 255))
    share = field(pattern, mask.width, mask.height, side)[..., None] * pattern.strength
    texture = np.array(thing.rgb) * (1 - share) + np.array(second) * share
    canvas.paste(Image.fromarray(texture.round().astype(np.uint8)), (left, top), mask)


def _shadow(draw: ImageDraw.ImageDraw, thing: Thing, horizon: float, side: int) -> None:
    """A soft ellipse under what stands on the ground."""
    _, half_y = thing.extent
    base = thing.y + half_y * 0.93
    if base <= horizon + 0.01:
        return
    for grow, alpha in ((1.06, 22), (0.9, 26), (0.7, 30)):
        rim = ellipse(thing.x, base, thing.width * 0.5 * grow, min(0.022, thing.height * 0.1) * grow)
        draw.polygon([(float(x), float(y)) for x, y in rim * side], fill=(30, 36, 52, alpha))


def _sky_and_ground(backdrop: Backdrop, side: int) -> Image.Image:
    horizon = round(backdrop.horizon * side)
    canvas = Image.new("RGB", (side, side))
    for (top, bottom), low, high in ((backdrop.sky, 0, horizon), (backdrop.ground, horizon, side)):
        ramp = np.linspace(np.array(top), np.array(bottom), max(2, high - low))[:, None].round().astype(np.uint8)
        canvas.paste(Image.fromarray(ramp).resize((side, high - low)), (0, low))
    for pattern, low, high in zip(backdrop.textures or (), (0, horizon), (horizon, side), strict=False):
        area = np.asarray(canvas.crop((0, low, side, high)), dtype=np.float32)
        share = field(pattern, side, high - low, side)[..., None] * pattern.strength
        second = np.array((52, 50, 56) if pattern.seed % 2 else (250, 248, 240), dtype=np.float32)
        mixed = (area * (1 - share) + second * share).round().astype(np.uint8)
        canvas.paste(Image.fromarray(mixed), (0, low))
    return canvas


def _scenery(draw: ImageDraw.ImageDraw, backdrop: Backdrop, side: int) -> None:
    """Clouds, hills, a road, pebbles and grass: nothing that a question asks for."""
    rng = np.random.default_rng(backdrop.seed)
    _clouds(draw, backdrop, rng, side)
    x = np.linspace(0, 1, 49)
    for hill in range(backdrop.hills):
        height = rng.uniform(0.03, 0.11) * (1 - 0.35 * hill)
        phase, period = rng.uniform(0, 6.28), rng.uniform(4, 9)
        crest = backdrop.horizon - height * (0.55 + 0.3 * np.sin(x * period + phase) + 0.15 * np.sin(2.3 * x * period))
        tint = _mix(backdrop.ground[0], backdrop.sky[1], 0.55 - 0.22 * hill)
        ridge = [(float(a * side), float(b * side)) for a, b in zip(x, crest, strict=True)]
        draw.polygon([*ridge, (side, backdrop.horizon * side + 1), (0, backdrop.horizon * side + 1)], fill=tint)
    if backdrop.road is not None:
        _road(draw, backdrop, backdrop.road, side)
    for _ in range(backdrop.pebbles):
        px, py = rng.uniform(0, 1), rng.uniform(backdrop.horizon + 0.03, 1)
        size = 0.004 + 0.008 * (py - backdrop.horizon)
        tint = _mix(backdrop.ground[1], (255, 255, 255) if rng.random() < 0.5 else (60, 60, 60), 0.22)
        draw.polygon([(float(a), float(b)) for a, b in ellipse(px, py, size, size * 0.5, n=10) * side], fill=tint)


def _clouds(draw: ImageDraw.ImageDraw, backdrop: Backdrop, rng: np.random.Generator, side: int) -> None:
    tint = _mix(backdrop.sky[1], (255, 255, 255), 0.62)
    for _ in range(backdrop.clouds):
        cx, cy, size = rng.uniform(0, 1), rng.uniform(0.03, backdrop.horizon * 0.7), rng.uniform(0.03, 0.075)
        for dx, dy, r in (
            (-1.25, 0.18, 0.62),
            (-0.45, -0.18, 0.9),
            (0.5, -0.05, 0.8),
            (1.25, 0.22, 0.55),
            (0.0, 0.3, 1.1),
        ):
            blob = ellipse(cx + dx * size, cy + dy * size * 0.7, r * size, r * size * 0.55)
            draw.polygon([(float(a), float(b)) for a, b in blob * side], fill=tint)


def _road(draw: ImageDraw.ImageDraw, backdrop: Backdrop, middle: float, side: int) -> None:
    half = 0.035 + 0.05 * (middle - backdrop.horizon)
    tone = _mix(backdrop.ground[1], (104, 108, 118), 0.75)
    draw.rectangle([0, (middle - half) * side, side, (middle + half) * side], fill=tone)
    for edge in (-half, half):
        y = (middle + edge) * side
        draw.line([(0, y), (side, y)], fill=_mix(tone, (255, 255, 255), 0.35), width=max(1, side // 160))
    for dash in np.arange(0.03, 1.0, 0.16):
        box = [dash * side, (middle - 0.006) * side, (dash + 0.07) * side, (middle + 0.006) * side]
        draw.rectangle(box, fill=_mix(tone, (255, 255, 255), 0.6))


def _film(picture: Image.Image, backdrop: Backdrop) -> Image.Image:
    """Exposure, slow unevenness and grain, as a camera adds them."""
    rng = np.random.default_rng([backdrop.seed, 1])
    side = picture.width
    coarse = Image.fromarray(rng.normal(0, 4, (7, 7)).astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, dtype=np.float32) + np.asarray(coarse)[:, :, None]
    grain = rng.standard_normal((side, side, 3), dtype=np.float32) * backdrop.noise
    return Image.fromarray(np.clip(pixels * backdrop.gain + grain, 0, 255).astype(np.uint8))
