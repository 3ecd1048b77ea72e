"""Demo scenes: the same everywhere, truth that the pixels bear out."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipe import samples
from recipe.dataset import GROUND, OWNED, SKY, Wear, framed, labels, wear_of, worn
from recipe.drawing import GRID, SIDE, coverage, render
from recipe.names import CLASSES, COLOURS, PLURALS, RGB
from recipe.scenes import GAP, MOST_THINGS, Scene, compose
from recipe.shapes import parts_of

SCENES = [compose(1234, number) for number in range(60)]
SAMPLES = Path(__file__).parents[1] / "sample_images"


def test_a_seed_and_a_number_are_a_scene() -> None:
    assert compose(5, 3) == compose(5, 3)
    assert len({compose(5, 3), compose(5, 4), compose(6, 3)}) == 3
    assert np.array_equal(np.asarray(render(SCENES[0])), np.asarray(render(SCENES[0])))


def test_every_class_has_a_plural_and_fills_its_box() -> None:
    assert len(CLASSES) == len(PLURALS) == 12
    for kind in CLASSES:
        for variant in (0, 1):
            points = np.concatenate([part.points for part in parts_of(kind, variant)])
            assert points.min(axis=0) == pytest.approx([-0.5, -0.5])
            assert points.max(axis=0) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("scene", SCENES)
def test_things_keep_apart_and_inside(scene: Scene) -> None:
    assert 3 <= len(scene.things) <= MOST_THINGS
    for number, thing in enumerate(scene.things):
        half_x, half_y = thing.extent
        assert half_x - 1e-9 <= thing.x <= 1 - half_x + 1e-9
        assert half_y - 1e-9 <= thing.y <= 1 - half_y + 1e-9
        for other in scene.things[:number]:
            gap_x = abs(thing.x - other.x) - half_x - other.extent[0]
            gap_y = abs(thing.y - other.y) - half_y - other.extent[1]
            assert max(gap_x, gap_y) >= GAP - 1e-9


def test_counted_classes_are_few_and_not_tiny() -> None:
    for scene in SCENES:
        kinds = [thing.kind for thing in scene.things]
        assert max(map(kinds.count, kinds)) <= 4
        for thing in scene.things:
            if kinds.count(thing.kind) > 1:
                assert max(thing.width, thing.height) * SIDE >= 20


def test_coverage_adds_up_to_the_area_of_the_shape() -> None:
    for scene in SCENES[:20]:
        shares = coverage(scene)
        assert shares.shape == (len(scene.things), GRID * GRID)
        assert (shares.sum(axis=0) <= 1 + 1e-6).all()
        for thing, share in zip(scene.things, shares, strict=True):
            assert 0.2 < share.mean() / (thing.width * thing.height) < 1.1


def test_labels_agree_with_coverage() -> None:
    for scene in SCENES[:20]:
        owners, fringe, things = labels(scene)
        shares = coverage(scene)
        for patch, owner in enumerate(owners):
            if owner >= SKY:
                assert shares[:, patch].max() < OWNED
                assert owner == (SKY if (patch // GRID + 0.5) / GRID < scene.backdrop.horizon else GROUND)
            else:
                assert shares[owner, patch] > 0
        assert set(range(len(scene.things))) <= set(owners.tolist())
        assert not fringe[owners < SKY].any()
        assert (things[len(scene.things) :, 0] == -1).all()


def test_the_named_colour_is_the_one_in_the_picture() -> None:
    """The median pixel of every patch that a thing fills is nearest, in hue or grey, to its named colour."""
    right = []
    for scene in SCENES:
        pixels = np.asarray(render(scene)).reshape(GRID, 12, GRID, 12, 3).transpose(0, 2, 1, 3, 4)
        patches = pixels.reshape(GRID * GRID, -1, 3)
        for thing, share in zip(scene.things, coverage(scene), strict=True):
            if thing.kind in {"car", "house"} or share.max() < 0.9:
                continue  # their fullest patch may be a window or a roof
            seen = np.median(patches[share.argmax()], axis=0)
            right.append(_nearest(seen) == thing.colour)
    assert len(right) > 80
    assert np.mean(right) > 0.9


def _nearest(rgb: np.ndarray) -> str:
    def place(colour: np.ndarray) -> np.ndarray:
        hue, saturation, value = colorsys.rgb_to_hsv(*(colour / 255))
        return np.array([saturation * np.cos(hue * 6.283), saturation * np.sin(hue * 6.283), 0.6 * value])

    return min(COLOURS, key=lambda name: float(np.linalg.norm(place(np.array(RGB[name])) - place(rgb))))


def test_worn_pictures_keep_their_size_and_their_truth() -> None:
    scene = SCENES[0]
    wear = Wear(scale=0.8, bars=0, dx=0.1, dy=0.1, resized=150, jpeg=60)
    picture = worn(render(scene), wear)
    assert picture.size == (SIDE, SIDE)
    assert np.asarray(picture)[:10].mean() < 30  # the bar
    moved = framed(scene, wear)
    assert moved.things[0].x == pytest.approx(0.1 + 0.8 * scene.things[0].x)
    assert coverage(moved).sum() == pytest.approx(0.64 * coverage(scene).sum(), rel=0.02)
    assert wear_of(1, 2) == wear_of(1, 2)


def test_sample_pictures_are_the_scenes_that_the_recipe_names() -> None:
    for name, scene in samples.scenes().items():
        with Image.open(SAMPLES / f"{name}.png") as picture:
            assert picture.size == (768, 768)
            small = np.asarray(picture.convert("RGB").resize((48, 48)), dtype=float)
        drawn = np.asarray(render(scene).resize((48, 48)), dtype=float)
        assert np.abs(small - drawn).mean() < 6


def test_sample_questions_are_the_ones_that_the_seed_gives() -> None:
    lines = [json.loads(line) for line in (SAMPLES / "questions.jsonl").read_text().splitlines()]
    expected = [
        (f"{name}.png", text, answer)
        for number, (name, scene) in enumerate(samples.scenes().items())
        for text, answer in samples.questions(name, scene, number)
    ]
    assert [(line["image"], line["text"], line["answer"]) for line in lines] == expected
    assert [line["question_id"] for line in lines] == list(range(1, len(lines) + 1))
    assert ("street.png", "what color is the sign?", "red") in expected
