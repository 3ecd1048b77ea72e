"""The pruners as their definitions say, slow and plain, in Python's floats: what the fast ones must equal.

Greedy pruners are given as a score: what taking token i would be worth when some are kept already, worked out anew
from the definition each time (`GREEDY`; the pruner's module has an `order`, tokens as they are taken). Others are given
as the tokens that they keep, ascending (`RANKED`), mergers as the kept token that each goes into (`MERGED`). `uniform`,
`random` and `none` have tests of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tests import reference

Vector = list[float]
Score = Callable[[list[int], int], float]


@dataclass(frozen=True)
class Case:
    """One image and its question."""

    saliency: Vector
    tokens: list[Vector]
    features: list[Vector]
    keys: list[Vector]
    text: list[Vector]
    own: tuple[int, int]
    crop: list[int]
    grids: tuple[tuple[int, int], ...]
    seed: int

    @property
    def visual(self) -> int:
        return len(self.saliency)

    @property
    def matched(self) -> Vector:
        """Similarity of each token to its best word."""
        rows = [softmax([100 * cosine(word, token) for token in self.tokens]) for word in self.text]
        return [max(column) for column in zip(*rows, strict=True)]


def dot(one: Vector, other: Vector) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def cosine(one: Vector, other: Vector) -> float:
    """Zero where one of them is."""
    return dot(one, other) / max(math.sqrt(dot(one, one)) * math.sqrt(dot(other, other)), 1e-24)


def softmax(values: Vector) -> Vector:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def divprune(case: Case) -> Score:
    def distance(i: int, k: int) -> float:
        return round(1 - cosine(case.tokens[i], case.tokens[k]), 12)

    def score(kept: list[int], i: int) -> float:
        return min((distance(i, k) for k in (kept or range(case.visual)) if k != i), default=0.0)

    return score


def cdpruner(case: Case) -> Score:
    """What is left of token i, scaled by its relevance, orthogonal to all kept ones: by projection, not by Cholesky.

    What is in the span of the kept ones comes after all others, by relevance.
    """
    mean = [sum(cosine(word, token) for word in case.text) / len(case.text) for token in case.tokens]
    span = max(mean) - min(mean)
    relevance = [(value - min(mean) + 1e-6) / span if span > 1e-7 else 1.0 for value in mean]
    unit = [[x / max(math.sqrt(dot(v, v)), 1e-12) for x in v] for v in case.tokens]

    def without(basis: list[Vector], i: int) -> Vector:
        left = unit[i]
        for _ in range(2):  # once more, since once is not exact
            for axis in basis:
                along = dot(left, axis)
                left = [x - along * a for x, a in zip(left, axis, strict=True)]
        return left

    @cache
    def span_of(kept: tuple[int, ...]) -> list[Vector]:
        if not kept:
            return []
        basis = span_of(kept[:-1])
        left = without(basis, kept[-1])
        length = math.sqrt(dot(left, left))
        return [*basis, [x / length for x in left]] if length**2 > 1e-9 else basis

    def score(kept: list[int], i: int) -> float:
        left = without(span_of(tuple(kept)), i)
        return relevance[i] ** 2 * dot(left, left) if dot(left, left) > 1e-5 else relevance[i] - 2

    return score


def gain(rows: list[Vector], kept: list[int], i: int) -> float:
    """What token i adds to the coverage of all rows."""
    return sum(max(0.0, row[i] - max([0.0, *(row[k] for k in kept)])) for row in rows)


def scope(case: Case) -> Score:
    rows = [[cosine(one, other) for other in case.features] for one in case.features]
    return lambda kept, i: case.saliency[i] * gain(rows, kept, i)


def mmtok(case: Case) -> Score:
    own = case.text[slice(*case.own)] or case.text
    text = [softmax([cosine(word, token) / 0.02 for token in case.tokens]) for word in own]
    image = [softmax([cosine(one, other) / 0.2 for other in case.features]) for one in case.features]
    rows = [[p / len(text) for p in row] for row in text] + [[0.5 * q / len(image) for q in row] for row in image]
    return lambda kept, i: gain(rows, kept, i)


GREEDY: dict[str, Callable[[Case], Score]] = dict(divprune=divprune, cdpruner=cdpruner, scope=scope, mmtok=mmtok)


def adafv(case: Case, keep: int) -> list[int]:
    return reference.select(case.saliency, case.matched, keep, case.crop)[0]


def saliency(case: Case, keep: int) -> list[int]:
    share = -(-keep // (max(case.crop) + 1))
    return sorted(reference.fairly_ranked(case.saliency, case.crop, share)[:keep])


def similarity(case: Case, keep: int) -> list[int]:
    return sorted(reference.ranked(case.matched)[:keep])


RANKED: dict[str, Callable[[Case, int], list[int]]] = dict(adafv=adafv, saliency=saliency, similarity=similarity)


def visionzip(case: Case, keep: int) -> list[int]:
    contextual = int(keep * 5 / 32)
    share = -(-(keep - contextual) // (max(case.crop) + 1))
    dominant = reference.fairly_ranked(case.saliency, case.crop, share)[: keep - contextual]
    into, rest = {i: i for i in dominant}, [i for i in range(case.visual) if i not in dominant]
    if contextual:
        targets = [rest[place * (len(rest) // contextual)] for place in range(contextual)]
        for i in rest:
            alike = {target: round(cosine(case.keys[i], case.keys[target]), 6) for target in targets}
            into[i] = i if i in targets else max(targets, key=lambda target: (alike[target], -target))
    return [into.get(i, -1) for i in range(case.visual)]


def pool(case: Case, keep: int) -> list[int]:
    """Cells are lines of the grid, each cut into parts, near to squares; a token is where its middle is."""
    into: list[int] = []
    done, area = 0, 0
    for rows, columns in case.grids:
        area += rows * columns
        share = round(keep * area / case.visual) - done
        done += share
        start = len(into)
        if not share:
            into += [-1] * (rows * columns)
            continue
        lines = max(round(math.sqrt(share * rows / columns)), math.ceil(share / columns), 1)
        lines = min(lines, rows, share)
        ends = [math.floor(share * line / lines + 0.5) for line in range(lines + 1)]
        for place in range(rows * columns):
            row, column = divmod(place, columns)
            line = math.floor((row + 0.5) / rows * lines + 1e-9)
            parts = ends[line + 1] - ends[line]
            part = math.floor((column + 0.5) / columns * parts + 1e-9)
            down, across = math.floor((line + 0.5) / lines * rows + 1e-9), (part + 0.5) / parts * columns
            into.append(start + down * columns + math.floor(across + 1e-9))
    return into


MERGED: dict[str, Callable[[Case, int], list[int]]] = dict(visionzip=visionzip, pool=pool)
