"""Questions about a scene with their true answers: only such that have exactly one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recipe.makers import MAKERS, NUMBER, Facts, Rng, SceneQuestion

__all__ = ["HARD_KINDS", "KINDS", "NUMBER", "SUFFIX", "SceneQuestion", "ask", "training_questions"]

SUFFIX = "\nAnswer the question using a single word or phrase."
HARD_KINDS = tuple(MAKERS)
KINDS = HARD_KINDS[:-1]  # no sign of a plain scene has a number
# How often training asks each kind: more of what is harder to learn.
_WEIGHTS = {
    "color": 4,
    "count": 10,
    "exist": 2.5,
    "exist-color": 3,
    "is-color": 2,
    "object": 3,
    "relation": 6,
    "side": 2,
    "biggest": 1.5,
    NUMBER: 14,
}


def _mix(kinds: Sequence[str]) -> NDArray[np.float64]:
    weights = np.array([_WEIGHTS[kind] for kind in kinds])
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


_MIX, _HARD_MIX = _mix(KINDS), _mix(HARD_KINDS)


def ask(rng: Rng, facts: Facts, kind: str, tries: int = 4) -> SceneQuestion | None:
    """A question of one kind, or None where the scene has none that is unambiguous."""
    for _ in range(tries):
        question = MAKERS[kind](rng, facts)
        if question is not None:
            return question
    return None


def training_questions(rng: Rng, facts: Facts, count: int) -> list[SceneQuestion]:
    """`count` questions of mixed kinds, some without a question mark, some with LLaVA's short-answer instruction."""
    questions: list[SceneQuestion] = []
    mix = _HARD_MIX if any(fact.digit is not None for fact in facts) else _MIX
    while len(questions) < count:
        question = ask(rng, facts, HARD_KINDS[int(rng.choice(len(mix), p=mix))], tries=1)
        if question is not None:
            text = question.text[:-1] if rng.random() < 0.08 else question.text
            questions.append(replace(question, text=text + SUFFIX if rng.random() < 0.06 else text))
    return questions
