"""The hard world of the demo: what its scenes have, numbers that need several patches, and held-out sets on disk."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recipe import heldout, samples
from recipe.dataset import SKY, labels, strokes
from recipe.digits import COUNT, DIGITS, MIRRORED, digit_of, templates
from recipe.drawing import GRID, SIDE, render
from recipe.evaluation import pictures, probes
from recipe.facts import facts_of
from recipe.hard_scenes import compose_hard
from recipe.language_losses import possible_digits
from recipe.names import COLOURS
from recipe.questions import HARD_KINDS, KINDS, NUMBER, ask, training_questions
from recipe.samples import SCENE_KEY
from recipe.scenes import GAP, MOST_THINGS, Pattern, Scene
from recipe.textures import STYLES, field
from recipe.vocabulary import UNKNOWN, encode
from recipe.worlds import HARD, PLAIN, REPORT, TUNE, Blend, Series, held_out

SAMPLES = Path(__file__).parents[1] / "sample_images"
SCENES = [compose_hard(4321, number) for number in range(80)]


def _numbers() -> list[tuple[Scene, str, str]]:
    found = []
    for number, scene in enumerate(SCENES):
        question = ask(np.random.default_rng(number), facts_of(labels(scene)[2]), NUMBER)
        if question is not None:
            found.append((scene, question.text, question.answer))
    assert len(found) > 40
    return found


def test_a_seed_and_a_number_are_a_hard_scene() -> None:
    assert compose_hard(5, 3) == compose_hard(5, 3)
    assert len({compose_hard(5, 3), compose_hard(5, 4), compose_hard(6, 3)}) == 3
    assert np.array_equal(np.asarray(render(SCENES[0])), np.asarray(render(SCENES[0])))


@pytest.mark.parametrize("scene", SCENES[:30])
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


def test_hard_scenes_have_what_makes_them_hard() -> None:
    things = [thing for scene in SCENES for thing in scene.things]
    assert 0.5 < np.mean([thing.pattern is not None for thing in things]) < 0.9
    assert all(scene.backdrop.textures and scene.backdrop.clutter for scene in SCENES)
    styles = {pattern.style for scene in SCENES for pattern in scene.backdrop.textures or ()}
    assert styles == set(STYLES)
    alike = [max(Counter(thing.kind for thing in scene.things).values()) for scene in SCENES]
    tinted = [max(Counter(thing.colour for thing in scene.things).values()) for scene in SCENES]
    assert np.mean(np.array(alike) > 1) > 0.6 and np.mean(np.array(tinted) > 1) > 0.6
    signs = Counter(sum(thing.kind == "sign" for thing in scene.things) for scene in SCENES)
    assert {0, 1, 2, 3} == set(signs)
    assert all((thing.kind == "sign") == bool(thing.strokes) and not (thing.strokes and thing.flip) for thing in things)


@pytest.mark.parametrize("style", STYLES)
def test_textures_vary_between_their_two_tones(style: str) -> None:
    values = field(Pattern(style, 0.08, 20.0, 0.3, 5), 90, 60, 192)
    assert values.shape == (60, 90)
    assert values.min() >= 0 and values.max() <= 1
    assert values.std() > 0.1
    assert np.array_equal(values, field(Pattern(style, 0.08, 20.0, 0.3, 5), 90, 60, 192))


def test_digits_differ_and_mirror_images_swap_sides() -> None:
    assert len(set(DIGITS)) == 10
    assert [digit_of(bits) for bits in DIGITS] == list(range(10))
    assert digit_of(0) is None
    lit = templates()
    assert lit.shape == (10, COUNT)
    assert (lit[8]).all() and np.array_equal(lit[0][list(MIRRORED)], lit[0])
    assert np.array_equal(lit[2][list(MIRRORED)], lit[5])


def test_number_questions_have_one_answer() -> None:
    for scene, text, answer in _numbers():
        signs = [thing for thing in scene.things if thing.kind == "sign"]
        named = [word for word in re.findall(r"\w+", text) if word in COLOURS]
        (sign,) = [sign for sign in signs if not named or sign.colour == named[0]]
        assert digit_of(sign.strokes) == int(answer)
        assert UNKNOWN not in encode(text) and UNKNOWN not in encode(answer)


def test_no_patch_shows_a_digit_and_all_of_a_sign_do() -> None:
    wide = []
    for scene in SCENES[:40]:
        owners = labels(scene)[0]
        shares = strokes(scene, owners)
        assert not shares[owners >= SKY].any()
        for number, thing in enumerate(scene.things):
            own = shares[owners == number].astype(int)
            if not thing.strokes:
                assert not own.any()
                continue
            from_all = possible_digits(torch.from_numpy(own))
            assert from_all.nonzero().flatten().tolist() == [digit_of(thing.strokes)]
            wide.append(int(own.any(axis=1).sum()))
            alone = possible_digits(torch.from_numpy(own)[:, None, :]).sum(-1)
            assert alone.float().mean() > 3
    assert np.mean(wide) > 9


def test_the_ink_of_a_painted_stroke_differs_from_the_plate() -> None:
    """In patches that one stroke fills, pixels are nearer to ink where it is painted than where it is missing."""
    painted, missing = [], []
    for scene in SCENES[:40]:
        grey = np.asarray(render(scene).convert("L"), dtype=float).reshape(GRID, 12, GRID, 12).transpose(0, 2, 1, 3)
        owners = labels(scene)[0]
        shares = strokes(scene, owners).astype(int)
        for number, thing in enumerate(scene.things):
            body = float(np.dot(thing.rgb, (0.299, 0.587, 0.114)))
            for patch in np.flatnonzero(owners == number):
                strongest = shares[patch][np.abs(shares[patch]).argmax()]
                if abs(strongest) > 45 and (np.abs(shares[patch]) > 5).sum() == 1:
                    furthest = np.abs(grey[patch // GRID, patch % GRID] - body).max()
                    (painted if strongest > 0 else missing).append(furthest)
    assert len(painted) > 20 and len(missing) > 5
    assert np.mean(painted) > 1.5 * np.mean(missing)


def test_scrambled_numbers_are_for_training_alone() -> None:
    plain, scrambled = compose_hard(9, 4), compose_hard(9, 4, scrambled=1.0)
    assert [thing.kind for thing in plain.things] == [thing.kind for thing in scrambled.things]
    marks = [thing.strokes for number in range(40) for thing in compose_hard(9, number, 1.0).things if thing.strokes]
    assert np.mean([digit_of(mark) is None for mark in marks]) > 0.7
    assert all(digit_of(thing.strokes) is not None for scene in SCENES for thing in scene.things if thing.strokes)


def test_training_blends_both_worlds() -> None:
    scenes = [Blend(22).scene(number) for number in range(9)]
    assert [scene.backdrop.textures is None for scene in scenes] == [True, False, False] * 3
    rng = np.random.default_rng(1)
    kinds = {q.kind for scene in SCENES[:20] for q in training_questions(rng, facts_of(labels(scene)[2]), 10)}
    assert kinds == set(HARD_KINDS)


def test_the_plain_held_out_questions_are_the_published_ones() -> None:
    asked = probes(per_kind=240)
    assert len(asked) == 240 * len(KINDS) == 2160
    fields = [(p.number, p.scene, p.kind, p.text, p.answer, p.size, p.asked) for p in asked]
    assert hashlib.sha256(repr(fields).encode()).hexdigest().startswith("78b047dc386a1b02")


def test_the_hard_held_out_questions_are_the_published_ones() -> None:
    asked = probes(240, held_out(HARD))
    assert len(asked) == 240 * len(HARD_KINDS) == 2400
    fields = [(p.number, p.scene, p.kind, p.text, p.answer, p.size, p.asked) for p in asked]
    assert hashlib.sha256(repr(fields).encode()).hexdigest().startswith("11c799b27a6fe2d9")
    biggest = Counter(probe.answer for probe in asked if probe.kind == "biggest")
    assert biggest["sign"] == max(biggest.values()) == 60  # of three in four scenes, of which a look tells nothing


@pytest.mark.parametrize("wrong", [["--per-kind", "0"], ["--per-kind", "-1"], ["--seed-offset", "-1"]])
def test_numbers_that_make_no_set_are_refused(
    wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["heldout", "--out", str(tmp_path / "set"), *wrong])
    with pytest.raises(SystemExit, match="2"):
        heldout.main()
    assert not (tmp_path / "set").exists()


def test_series_are_disjoint() -> None:
    series = [
        held_out(world, split, offset) for world in (PLAIN, HARD) for split in (REPORT, TUNE) for offset in (0, 1)
    ]
    seeds = [one.seed for one in series]
    assert len(set(seeds)) == len(seeds)
    assert not set(seeds) & {1, 2, 4, 12, 14, 22}  # training, quick looks and samples
    assert held_out() == Series(PLAIN, 3)


@pytest.mark.parametrize("world", [PLAIN, HARD])
def test_held_out_sets_are_written_as_they_are_asked(
    world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["heldout", "--set", world, "--split", "tune", "--per-kind", "2", "--out", str(tmp_path)]
    )
    heldout.main()
    lines = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    asked = probes(2, held_out(world, TUNE))
    assert [(x["text"], x["answer"], x["kind"], x["size"]) for x in lines] == [
        (p.text, p.answer, p.kind, p.size) for p in asked
    ]
    assert [x["question_id"] for x in lines] == list(range(1, len(lines) + 1))
    shown = pictures(asked)
    for line, probe in zip(lines, asked, strict=True):
        with Image.open(tmp_path / line["image"]) as picture:
            assert picture.size == (SIDE, SIDE)
            assert picture.text[SCENE_KEY] == "1"
            assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(shown[probe.scene]))


def test_hard_samples_are_what_the_recipe_names() -> None:
    lines = [json.loads(line) for line in (SAMPLES / "hard_questions.jsonl").read_text().splitlines()]
    expected = [
        (f"{name}.png", text, answer)
        for number, (name, scene) in enumerate(samples.hard_scenes().items())
        for text, answer in samples.hard_questions(scene, number)
    ]
    assert [(line["image"], line["text"], line["answer"]) for line in lines] == expected
    assert sum(" sign" in text and answer.isdigit() for _, text, answer in expected) >= 4
    for name, scene in samples.hard_scenes().items():
        with Image.open(SAMPLES / f"{name}.png") as picture:
            assert picture.size == (768, 768)
            assert picture.text[SCENE_KEY] == "1"
            small = np.asarray(picture.convert("RGB").resize((48, 48)), dtype=float)
        assert np.abs(small - np.asarray(render(scene).resize((48, 48)), dtype=float)).mean() < 6
    with Image.open(SAMPLES / "hard-scenes.png") as picture:
        assert picture.size == samples.sheet().size
    for name in (*samples.hard_scenes(), "hard-scenes"):
        assert (SAMPLES / f"{name}.png").stat().st_size < 300_000
