"""What the gates measure, each on the held-out questions of one world."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import adafv
from adafv.engine import Model
from recipe.dataset import OWNED, TOUCHED, labels, strokes
from recipe.drawing import GRID, SIDE, coverage, render
from recipe.evaluation import SMALL_PX, Probe, pictures, right_answers, scene_of, share, shares_by
from recipe.handling import USES
from recipe.language_losses import possible_digits
from recipe.questions import NUMBER
from recipe.stock import Stock

log = logging.getLogger(__name__)

SOME = (0, 1, 2, 3, 4, 6, 8)  # patches of a number that gate 6 leaves


def knows(model: Model, asked: Sequence[Probe]) -> dict[str, Any]:
    """Gate 1: dense accuracy, all and by kind."""
    right = right_answers(model, asked, pictures(asked), "all", "none")
    return {name: [s.percent, s.error, s.count] for name, s in shares_by(right, asked, "kind").items()}


def own_information(stock: Stock, asked: Sequence[Probe]) -> dict[str, Any]:
    """Gate 2: "what color is X?" with X's patches gone, and with their fringe gone too; chance is 12.5."""
    colour = [probe for probe in asked if probe.kind == "color"]
    shown = pictures(colour)
    result = {}
    for name, least in (("all patches", 2.0), ("without object", OWNED), ("without object and fringe", TOUCHED)):
        right = []
        for probe in colour:
            removed = torch.from_numpy(coverage(scene_of(probe))[probe.asked] >= least)
            right.append(stock.answer_without(shown[probe.scene], probe.text, removed) == probe.answer)
        result[name] = {k: [s.percent, s.error, s.count] for k, s in shares_by(right, colour, "size").items()}
    return result


def needs_several(stock: Stock, asked: Sequence[Probe], some: Sequence[int] = SOME) -> dict[str, Any]:
    """Gate 6: "what number is on the sign?" with only some of the patches that show a part of it, others all there.

    Which ones is decided by a seed. Beside every share of right answers stands that of an ideal reader, which knows
    the strokes, painted or missing, in the kept patches and guesses among the digits that are still possible. Last,
    the same with the whole sign and its fringe gone.
    """
    numbers = [probe for probe in asked if probe.kind == NUMBER]
    shown, result = pictures(numbers), {}
    for name, most in (*((str(most), most) for most in some), ("all", GRID * GRID), ("no sign", -1)):
        right, ideal = [], []
        for probe in numbers:
            removed, left = _without_parts(probe, most)
            right.append(stock.answer_without(shown[probe.scene], probe.text, removed) == probe.answer)
            ideal.append(100 / float(possible_digits(left, least=1).sum()))
        own = share(right, [probe.scene for probe in numbers])
        result[name] = {"right": own.percent, "error": own.error, "ideal": float(np.mean(ideal))}
        log.info("patches left: %s: %s", name, result[name])
    return result


def without_order(stock: Stock, asked: Sequence[Probe]) -> dict[str, float]:
    """Not a gate: how much is right, with every visual token there, in their order and in a random one."""
    shown = pictures(asked)
    every = torch.arange(GRID * GRID)
    right: dict[str, list[bool]] = {"in order": [], "shuffled": []}
    for probe in asked:
        order = torch.from_numpy(np.random.default_rng([probe.series.seed, probe.number, 5]).permutation(GRID * GRID))
        for name, patches in (("in order", every), ("shuffled", order)):
            right[name].append(stock.answer_from(shown[probe.scene], probe.text, patches) == probe.answer)
    shares = {name: share(marks, [probe.scene for probe in asked]) for name, marks in right.items()}
    return {name: one.percent for name, one in shares.items()} | {
        f"{name}, error": one.error for name, one in shares.items()
    }


def _without_parts(probe: Probe, most: int) -> tuple[Tensor, Tensor]:
    """Patches to remove (patches,) bool so that `most` still show a part of the number, and the strokes left.

    Below zero, the sign is removed altogether.
    """
    scene = scene_of(probe)
    owners = labels(scene)[0]
    parts = strokes(scene, owners) * (owners == probe.asked)[:, None]
    order = np.random.default_rng([probe.series.seed, probe.scene, 9]).permutation(np.flatnonzero(parts.any(axis=1)))
    removed = coverage(scene)[probe.asked] >= (TOUCHED if most < 0 else 2.0)
    removed[order[max(0, most) :]] = True
    return torch.from_numpy(removed), torch.from_numpy(parts[~removed])


def saliency_bias(stock: Stock, asked: Sequence[Probe], most: int = 150) -> dict[str, float]:
    """Gate 3: how the saliency of big and small things differs.

    As multiples of the picture's mean, patch by patch, and as the share of things that have one of the 16 most
    salient patches.
    """
    ratios: dict[str, list[float]] = {"big": [], "small": [], "background": []}
    kept: dict[str, list[bool]] = {"big": [], "small": []}
    scenes = {probe.scene: scene_of(probe) for probe in asked}
    for scene in list(scenes.values())[:most]:
        saliency = stock.saliency(render(scene)).numpy()
        relative, top = saliency / saliency.mean(), saliency >= np.sort(saliency)[-16]
        shares = coverage(scene)
        for thing, covered in zip(scene.things, shares >= OWNED, strict=True):
            longer = max(thing.width, thing.height) * SIDE
            size = "big" if longer >= 50 else "small" if longer < SMALL_PX else None
            if size and covered.any():
                ratios[size] += relative[covered].tolist()
                kept[size].append(bool(top[covered].any()))
        ratios["background"] += relative[shares.max(axis=0) < TOUCHED].tolist()
    means = {name: float(np.mean(values)) for name, values in ratios.items()}
    return means | {f"{name} kept at 16": 100 * float(np.mean(values)) for name, values in kept.items()}


def survives_use(model: Model, asked: Sequence[Probe]) -> dict[str, list[float]]:
    """Gate 4: dense accuracy after what happens to pictures."""
    shown, result = pictures(asked), {}
    for name, change in USES.items():
        right = right_answers(model, asked, {k: change(picture) for k, picture in shown.items()}, "all", "none")
        all_shares = share(right, [probe.scene for probe in asked])
        result[name] = [all_shares.percent, all_shares.error]
        log.info("%s: %s", name, all_shares)
    return result


def agrees(stock: Stock, model: Model, asked: Sequence[Probe]) -> dict[str, float]:
    """Gate 5: stock `generate` and the engine give the same text, and it is as often right."""
    shown = pictures(asked)
    questions = [adafv.Question(probe.number, shown[probe.scene], probe.text) for probe in asked]
    ours = [answer.text for answer in model.batch(questions, keep="all", pruner="none", batch_size=36)]
    theirs = [stock.answer(shown[probe.scene], probe.text) for probe in asked]
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    right = [text == probe.answer for text, probe in zip(theirs, asked, strict=True)]
    return {"same": 100 * float(np.mean(same)), "right": 100 * float(np.mean(right)), "questions": len(asked)}
