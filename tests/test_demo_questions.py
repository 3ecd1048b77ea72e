"""Demo questions: every one has a single answer, recomputed here from its words and the scene alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from recipe.dataset import labels
from recipe.facts import facts_of
from recipe.hard_scenes import compose_hard
from recipe.names import CLASSES, COLOURS, PLURALS
from recipe.questions import KINDS, SUFFIX, ask, training_questions
from recipe.scenes import Scene, Thing, compose
from recipe.vocabulary import ID, NUMBERS, UNKNOWN, encode

SCENES = [make(4321, number) for make in (compose, compose_hard) for number in range(150)]
SINGULAR = dict(zip(PLURALS, CLASSES, strict=True)) | {name: name for name in CLASSES}


def _all(kind: str) -> list[tuple[Scene, str, str]]:
    found = []
    for number, scene in enumerate(SCENES):
        question = ask(np.random.default_rng(number), facts_of(labels(scene)[2]), kind)
        if question is not None:
            assert question.kind == kind
            found.append((scene, question.text, question.answer))
    assert len(found) > 80
    return found


def _named(text: str) -> list[str]:
    return [SINGULAR[word] for word in re.findall(r"\w+", text) if word in SINGULAR]


def _colour(text: str) -> str:
    (colour,) = [word for word in re.findall(r"\w+", text) if word in COLOURS]
    return colour


def _only(scene: Scene, kind: str) -> Thing:
    (thing,) = [thing for thing in scene.things if thing.kind == kind]
    return thing


def test_color() -> None:
    for scene, text, answer in _all("color"):
        (kind,) = _named(text)
        assert _only(scene, kind).colour == answer


def test_count() -> None:
    answers = Counter()
    for scene, text, answer in _all("count"):
        (kind,) = _named(text)
        assert [thing.kind for thing in scene.things].count(kind) == int(answer)
        answers[answer] += 1
    assert set(answers) == set(NUMBERS)
    assert max(answers.values()) < 0.5 * sum(answers.values())


def test_exist() -> None:
    answers = Counter()
    for scene, text, answer in _all("exist"):
        (kind,) = _named(text)
        assert (kind in {thing.kind for thing in scene.things}) == (answer == "yes")
        answers[answer] += 1
    assert 0.35 < answers["yes"] / sum(answers.values()) < 0.65


def test_exist_color() -> None:
    answers = Counter()
    for scene, text, answer in _all("exist-color"):
        (kind,) = _named(text)
        pairs = {(thing.kind, thing.colour) for thing in scene.things}
        assert ((kind, _colour(text)) in pairs) == (answer == "yes")
        answers[answer] += 1
    assert 0.35 < answers["yes"] / sum(answers.values()) < 0.65


def test_is_color() -> None:
    for scene, text, answer in _all("is-color"):
        (kind,) = _named(text)
        assert (_only(scene, kind).colour == _colour(text)) == (answer == "yes")


def test_object() -> None:
    for scene, text, answer in _all("object"):
        (thing,) = [thing for thing in scene.things if thing.colour == _colour(text)]
        assert thing.kind == answer


def test_relation() -> None:
    for scene, text, answer in _all("relation"):
        first, second = (_only(scene, kind) for kind in _named(text))
        dx, dy = first.x - second.x, first.y - second.y
        assert {"left": dx < 0, "right": dx > 0, "above": dy < 0, "below": dy > 0}[answer]
        assert (abs(dx) if answer in {"left", "right"} else abs(dy)) >= 0.1 - 1e-6
        if "where" in text:
            assert max(abs(dx), abs(dy)) >= 1.6 * min(abs(dx), abs(dy)) - 1e-6
        else:
            assert answer in text


def test_side() -> None:
    for scene, text, answer in _all("side"):
        (kind,) = _named(text)
        x = _only(scene, kind).x
        assert (x < 0.5) == (answer == "left")
        assert abs(x - 0.5) >= 0.08 - 1e-6


def test_biggest() -> None:
    for scene, _, answer in _all("biggest"):
        areas = defaultdict(float)
        for thing in scene.things:
            areas[thing.kind] = max(areas[thing.kind], thing.width * thing.height)
        # The truth goes by covered pixels; the bounding box of the true answer is at least nearly the biggest.
        assert areas[answer] >= 0.6 * max(areas.values())


@pytest.mark.parametrize("kind", KINDS)
def test_all_words_are_known(kind: str) -> None:
    for _, text, answer in _all(kind):
        assert UNKNOWN not in encode(text)
        assert answer in ID
    assert UNKNOWN not in encode(SUFFIX)


def test_needed_things_are_the_ones_that_a_question_is_about() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES[:40]:
        for question in training_questions(rng, facts_of(labels(scene)[2]), 10):
            kinds = {scene.things[number].kind for number in question.needed}
            if question.kind not in {"object", "biggest"}:
                assert kinds <= set(_named(question.text))
            if question.answer != "no":
                assert question.needed
            assert question.asked == -1 if not question.needed else question.asked in question.needed


def test_training_asks_every_kind_and_both_forms() -> None:
    rng = np.random.default_rng(1)
    asked = [q for scene in SCENES[:100] for q in training_questions(rng, facts_of(labels(scene)[2]), 10)]
    assert {question.kind for question in asked} == set(KINDS)
    assert 20 < sum(question.text.endswith(SUFFIX) for question in asked) < 120
