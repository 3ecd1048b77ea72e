"""How each kind of question is made: a text with its true answer, or None where it would not have exactly one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from recipe.facts import Fact
from recipe.names import CLASSES, COLOURS, PLURALS
from recipe.vocabulary import DIGITS, NUMBERS

APART = 0.1  # least distance between two things, along the axis that a question asks about
CLEARLY = 1.6  # ... and how much it must exceed the other axis when the question leaves the axis open
BIGGER = 1.35  # least ratio of the two biggest areas
NUMBER = "number"
ASIDE = 0.08  # least distance from the middle for "which side"


@dataclass(frozen=True)
class SceneQuestion:
    """A question, its answer, and which things it takes to know."""

    kind: str
    text: str
    answer: str
    needed: frozenset[int]  # numbers of all things that must be seen
    asked: int  # the one of them that is hardest to see; -1 where the question names something absent


T = TypeVar("T")
Rng = np.random.Generator
Facts = Sequence[Fact]


def _pick(rng: Rng, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _an(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _unique(facts: Facts) -> list[Fact]:
    kinds = [fact.kind for fact in facts]
    return [fact for fact in facts if kinds.count(fact.kind) == 1]


def _question(kind: str, text: str, answer: str, seen: Facts) -> SceneQuestion:
    asked = min(seen, key=lambda fact: fact.area).number if seen else -1
    return SceneQuestion(kind, text, answer, frozenset(fact.number for fact in seen), asked)


def _color(rng: Rng, facts: Facts) -> SceneQuestion | None:
    unique = _unique(facts)
    if not unique:
        return None
    fact = _pick(rng, unique)
    forms = (
        "what color is the {}?",
        "what color is the {}?",
        "what is the color of the {}?",
        "which color is the {}?",
        "what colour is the {}?",
        "tell me the color of the {}.",
        "what color does the {} have?",
    )
    return _question("color", _pick(rng, forms).format(fact.name), COLOURS[fact.colour], [fact])


def _count(rng: Rng, facts: Facts) -> SceneQuestion | None:
    kinds = [fact.kind for fact in facts]
    counts = {kind: kinds.count(kind) for kind in kinds}
    wanted = _pick(rng, sorted(set(counts.values())))
    # Most classes occur once: without this, "1" would be the answer three times out of five.
    if wanted > len(NUMBERS) or (wanted == 1 and rng.random() < 0.6):
        return None
    kind = _pick(rng, [kind for kind, count in counts.items() if count == wanted])
    forms = (
        "how many {} are there?",
        "how many {} are there?",
        "how many {} do you see?",
        "how many {} are in the picture?",
        "count the {}.",
        "what is the number of {}?",
        "how many {} can you see in the image?",
    )
    plural = "fish" if CLASSES[kind] == "fish" and rng.random() < 0.5 else PLURALS[kind]
    seen = [fact for fact in facts if fact.kind == kind]
    return _question("count", _pick(rng, forms).format(plural), NUMBERS[wanted - 1], seen)


def _exist(rng: Rng, facts: Facts) -> SceneQuestion | None:
    present = {fact.kind for fact in facts}
    yes = rng.random() < 0.5
    kinds = [kind for kind in range(len(CLASSES)) if (kind in present) == yes]
    if not kinds:
        return None
    kind = _pick(rng, kinds)
    forms = (
        "is there {}?",
        "is there {} in the image?",
        "is there {} in the picture?",
        "can you see {}?",
        "do you see {}?",
        "does the picture show {}?",
    )
    text = _pick(rng, forms).format(_an(CLASSES[kind]))
    return _question("exist", text, "yes" if yes else "no", [fact for fact in facts if fact.kind == kind])


def _exist_color(rng: Rng, facts: Facts) -> SceneQuestion | None:
    fact = _pick(rng, facts)
    kind, colour = fact.kind, fact.colour
    if rng.random() < 0.5:
        if rng.random() < 0.75:
            colour = _other_colour(rng, facts, {f.colour for f in facts if f.kind == kind})
        else:
            kind = _pick(rng, [k for k in range(len(CLASSES)) if all((f.kind, f.colour) != (k, colour) for f in facts)])
    seen = [f for f in facts if f.kind == kind]
    matching = [f for f in seen if f.colour == colour]
    forms = ("is there {}?", "is there {} in the picture?", "can you see {}?", "do you see {} in the image?")
    text = _pick(rng, forms).format(f"{_an(COLOURS[colour])} {CLASSES[kind]}")
    return _question("exist-color", text, "yes" if matching else "no", matching or seen)


def _other_colour(rng: Rng, facts: Facts, taken: set[int]) -> int:
    """A colour that is not in `taken`; mostly one that the scene shows elsewhere."""
    shown = sorted({fact.colour for fact in facts} - taken)
    if shown and rng.random() < 0.6:
        return _pick(rng, shown)
    return _pick(rng, [colour for colour in range(len(COLOURS)) if colour not in taken])


def _is_color(rng: Rng, facts: Facts) -> SceneQuestion | None:
    unique = _unique(facts)
    if not unique:
        return None
    fact = _pick(rng, unique)
    yes = rng.random() < 0.5
    colour = fact.colour if yes else _other_colour(rng, facts, {fact.colour})
    text = _pick(rng, ("is the {} {}?", "is the color of the {} {}?", "is the {} {} or not?"))
    return _question("is-color", text.format(fact.name, COLOURS[colour]), "yes" if yes else "no", [fact])


def _object(rng: Rng, facts: Facts) -> SceneQuestion | None:
    colours = [fact.colour for fact in facts]
    single = [fact for fact in facts if colours.count(fact.colour) == 1]
    if not single:
        return None
    fact = _pick(rng, single)
    forms = ("what object is {}?", "which object is {}?", "what is {}?", "what thing is {}?", "name the {} object.")
    return _question("object", _pick(rng, forms).format(COLOURS[fact.colour]), fact.name, [fact])


def _relation(rng: Rng, facts: Facts) -> SceneQuestion | None:
    unique = _unique(facts)
    if len(unique) < 2:
        return None
    first, second = (unique[i] for i in rng.permutation(len(unique))[:2])
    dx, dy = first.x - second.x, first.y - second.y
    across, along = "left" if dx < 0 else "right", "above" if dy < 0 else "below"
    form = int(rng.integers(3))
    if form == 0 and abs(dx) >= APART:
        texts: tuple[str, ...] = (
            "is the {} left or right of the {}?",
            "is the {} to the left or to the right of the {}?",
        )
        answer = across
    elif form == 1 and abs(dy) >= APART:
        texts, answer = ("is the {} above or below the {}?", "is the {} below or above the {}?"), along
    elif form == 2 and max(abs(dx), abs(dy)) >= max(APART, CLEARLY * min(abs(dx), abs(dy))):
        texts = ("where is the {} compared to the {}?", "where is the {} relative to the {}?")
        answer = across if abs(dx) > abs(dy) else along
    else:
        return None
    return _question("relation", _pick(rng, texts).format(first.name, second.name), answer, [first, second])


def _side(rng: Rng, facts: Facts) -> SceneQuestion | None:
    aside = [fact for fact in _unique(facts) if abs(fact.x - 0.5) >= ASIDE]
    if not aside:
        return None
    fact = _pick(rng, aside)
    forms = ("which side is the {} on?", "is the {} on the left or on the right?", "on which side is the {}?")
    return _question("side", _pick(rng, forms).format(fact.name), "left" if fact.x < 0.5 else "right", [fact])


def _biggest(rng: Rng, facts: Facts) -> SceneQuestion | None:
    ranked = sorted(facts, key=lambda fact: -fact.area)
    if len(ranked) < 2 or ranked[0].area < BIGGER * ranked[1].area:
        return None
    forms = (
        "what is the biggest object?",
        "which object is the largest?",
        "what is the largest object?",
        "name the biggest thing.",
    )
    return _question("biggest", _pick(rng, forms), ranked[0].name, ranked[:1])


def _number(rng: Rng, facts: Facts) -> SceneQuestion | None:
    """The digit on a sign: on the only one, or on the only one of its colour."""
    signs = [fact for fact in facts if fact.name == "sign"]
    colours = [fact.colour for fact in signs]
    numbered = [fact for fact in signs if fact.digit is not None and colours.count(fact.colour) == 1]
    if not numbered:
        return None
    fact = _pick(rng, numbered)
    forms = (
        "what number is on the {}?",
        "what number is on the {}?",
        "what number is painted on the {}?",
        "which number is written on the {}?",
        "what is the number on the {}?",
        "which digit is on the {}?",
        "read the number on the {}.",
    )
    bare = len(signs) == 1 and rng.random() < 0.7
    name = "sign" if bare else f"{COLOURS[fact.colour]} sign"
    return _question(NUMBER, _pick(rng, forms).format(name), DIGITS[fact.digit or 0], [fact])


Maker = Callable[[Rng, Facts], SceneQuestion | None]
MAKERS: dict[str, Maker] = {
    "color": _color,
    "count": _count,
    "exist": _exist,
    "exist-color": _exist_color,
    "is-color": _is_color,
    "object": _object,
    "relation": _relation,
    "side": _side,
    "biggest": _biggest,
    NUMBER: _number,
}
