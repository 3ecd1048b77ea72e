"""Every pruner equals its definition: plain Python on many small images, with ties, duplicates, zeros and padding."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable

import pytest
import torch

from adafv import pruners
from adafv.evidence import Evidence
from tests.pruner_cases import GRIDS, WIDTH, draw, drawn, gathered
from tests.pruner_references import GREEDY, MERGED, RANKED, Case, Score

CASES = 150
Order = Callable[[Evidence, int], torch.Tensor]


def order_of(name: str) -> Order:
    """A greedy pruner's tokens in the order in which it takes them."""
    found: Order = importlib.import_module(f"adafv.pruners.{name}").order
    return found


def check(case: Case, score: Score, order: list[int]) -> bool:
    """Each token taken is the best of those left; whether every step was so clear that nothing else could be taken."""
    clear, scale = True, max(score([], i) for i in range(case.visual))
    for step, taken in enumerate(order):
        kept = order[:step]
        left = {i: score(kept, i) for i in range(case.visual) if i not in kept}
        slack = 5e-5 * abs(left[taken]) + 2e-6 * scale
        assert left[taken] >= max(left.values()) - slack, (step, order)
        if left[taken] > slack or len(case.tokens[0]) == WIDTH:  # what is left in a flat image is rounding
            assert taken == min(i for i, value in left.items() if value == left[taken]), (step, order)
        clear &= all(value == left[taken] or value < left[taken] - slack for value in left.values())
    return clear


def plain_order(case: Case, score: Score, keep: int) -> list[int]:
    kept: list[int] = []
    while len(kept) < keep:
        kept.append(max((i for i in range(case.visual) if i not in kept), key=lambda i: (score(kept, i), -i)))
    return kept


@pytest.mark.parametrize("name", GREEDY)
def test_every_step_takes_the_best_token(name: str) -> None:
    rng, clear = random.Random(0), 0
    for _ in range(CASES):
        case = draw(rng)
        keep = rng.choice([1, case.visual, max(1, case.visual - 1), rng.randint(1, case.visual)])
        order = order_of(name)(gathered([case]), keep)[0].tolist()
        assert len(set(order)) == keep
        score = GREEDY[name](case)
        if check(case, score, order):
            clear += 1
            assert order == plain_order(case, score, keep)
        assert pruners.get(name)(gathered([case]), keep).indices[0].tolist() == sorted(order)
    assert clear > CASES // 2  # the others have steps that rounding may decide


@pytest.mark.parametrize("name", GREEDY)
def test_a_batch_takes_what_its_rows_take_in_the_same_order(name: str) -> None:
    rng = random.Random(1)
    for _ in range(CASES):
        cases = drawn(rng, rng.randint(2, 5))
        keep = rng.randint(1, min(case.visual for case in cases))
        together = order_of(name)(gathered(cases), keep)
        for row, case in enumerate(cases):
            assert torch.equal(order_of(name)(gathered([case]), keep)[0], together[row])


@pytest.mark.parametrize("name", RANKED)
def test_rankings_are_the_definition_s(name: str) -> None:
    rng, seen = random.Random(2), 0
    while seen < CASES:
        case = draw(rng)
        keep = rng.randint(1, case.visual)
        if min(case.matched) < 1e-30 or max(case.matched) > 1 - 1e-6:  # float32 makes it zero or one
            continue
        seen += 1
        found = pruners.get(name)(gathered([case]), keep).indices[0].tolist()
        assert found == RANKED[name](case, keep)


@pytest.mark.parametrize("name", MERGED)
def test_what_is_merged_goes_where_the_definition_says(name: str) -> None:
    rng, merged = random.Random(4), 0
    for number in range(2 * CASES):
        case = draw(rng, ((4, 6), (8, 5)) if number % 3 == 0 else ())
        keep = rng.randint(1, case.visual)
        chosen = pruners.get(name)(gathered([case]), keep)
        kept = chosen.indices[0].tolist()
        into = MERGED[name](case, keep)
        assert len(kept) == keep and kept == sorted({place for place in into if place >= 0})
        if chosen.into is None:
            assert [place for number, place in enumerate(into) if place not in (number, -1)] == []
        else:
            assert chosen.into[0].tolist() == into
            merged += 1
    assert merged > CASES


def test_random_draws_every_token_equally_often() -> None:
    rng, seen = random.Random(3), torch.zeros(21)
    case = draw(rng, GRIDS[4])
    evidence = gathered([case] * 3000)
    evidence = type(evidence)(**{**vars(evidence), "seeds": tuple(range(3000))})
    seen = torch.bincount(pruners.get("random")(evidence, 7).indices.flatten(), minlength=21)
    assert seen.sum() == 21000 and (seen - 1000).abs().max() < 130
