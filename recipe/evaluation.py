"""Held-out questions, and how well a model answers them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

import adafv
from adafv.engine import Model
from recipe.dataset import labels
from recipe.drawing import SIDE, render
from recipe.facts import facts_of
from recipe.questions import ask
from recipe.scenes import Scene
from recipe.worlds import PUBLISHED, Series

SMALL_PX = 26  # a thing whose longer side is below this, of 192, is small


@dataclass(frozen=True)
class Probe:
    """One held-out question."""

    number: int
    scene: int
    kind: str
    text: str
    answer: str
    size: str  # of the asked thing: small, large, or absent
    asked: int  # its number in the scene, -1 where absent
    series: Series = PUBLISHED


@dataclass(frozen=True)
class Share:
    """A percentage of right answers with its standard error."""

    percent: float
    error: float
    count: int

    def __str__(self) -> str:
        return f"{self.percent:.1f} ± {self.error:.1f}"


def scene_of(probe: Probe) -> Scene:
    """The scene that a probe asks about."""
    return probe.series.scene(probe.scene)


def probes(per_kind: int, series: Series = PUBLISHED) -> list[Probe]:
    """`per_kind` questions of every kind of the series' world, at most one of a kind on a scene; scenes in order.

    What is biggest is at most in a quarter of the questions the same thing: signs are drawn biggest, and "sign" would
    be right in three of four hard scenes, without a look at them.
    """
    missing = dict.fromkeys(series.kinds, per_kind)
    left_of = defaultdict[str, int](lambda: math.ceil(per_kind / 4))  # biggest things of one class
    found: list[Probe] = []
    scene_number = 0
    while any(left > 0 for left in missing.values()):
        scene = series.scene(scene_number)
        facts = facts_of(labels(scene)[2])
        rng = np.random.default_rng([series.seed, scene_number, 3])
        for kind in series.kinds:
            question = ask(rng, facts, kind)
            if question is not None and missing[kind] > 0:
                if kind == "biggest":
                    left_of[question.answer] -= 1
                    if left_of[question.answer] < 0:
                        continue
                missing[kind] -= 1
                size = _size(scene, question.asked)
                text, answer = question.text, question.answer
                found.append(Probe(len(found), scene_number, kind, text, answer, size, question.asked, series))
        scene_number += 1
    return found


def _size(scene: Scene, asked: int) -> str:
    if asked < 0:
        return "absent"
    thing = scene.things[asked]
    return "small" if max(thing.width, thing.height) * SIDE < SMALL_PX else "large"


def pictures(asked: Iterable[Probe], side: int = SIDE) -> dict[int, Image.Image]:
    """Each scene's picture, once; all probes are of one series."""
    scenes = {probe.scene: scene_of(probe) for probe in asked}
    return {number: render(scenes[number], side) for number in sorted(scenes)}


def right_answers(
    model: Model, asked: Sequence[Probe], shown: dict[int, Image.Image], keep: str, pruner: str, batch_size: int = 36
) -> list[bool]:
    """Whether the engine's answer to each probe is the true one, in order."""
    questions = [adafv.Question(probe.number, shown[probe.scene], probe.text) for probe in asked]
    answers = model.batch(questions, batch_size=batch_size, keep=keep, pruner=pruner)
    return [answer.text == probe.answer for answer, probe in zip(answers, asked, strict=True)]


def share(right: Sequence[bool], clusters: Sequence[Hashable]) -> Share:
    """Percentage of right answers; its standard error allows for questions on one scene being alike."""
    if not right:
        return Share(math.nan, math.nan, 0)
    mean = sum(right) / len(right)
    deviations: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(right, clusters, strict=True):
        deviations[cluster] += value - mean
    error = math.sqrt(sum(deviation**2 for deviation in deviations.values())) / len(right)
    return Share(100 * mean, 100 * error, len(right))


class Asked(Protocol):
    """A question about one of many scenes."""

    @property
    def scene(self) -> int:
        """Number of the scene."""


def shares_by(right: Sequence[bool], asked: Sequence[Asked], field: str) -> dict[str, Share]:
    """Share of right answers for each value of a probe's field, and for "all"."""
    groups = {"all": list(range(len(asked)))}
    for index, probe in enumerate(asked):
        groups.setdefault(getattr(probe, field), []).append(index)
    return {
        name: share([right[i] for i in members], [asked[i].scene for i in members]) for name, members in groups.items()
    }
