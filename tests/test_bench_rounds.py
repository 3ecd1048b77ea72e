"""Rounds of a bench: whole ones alone count, ratios are taken within a round, and no speed-up is said that is none."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adafv.bench.rounds import Rounds, Sample, Speedup, Spread, Variant

NEVER, PAST = time.monotonic() + 1e9, time.monotonic() - 1
seconds = st.lists(st.floats(0.01, 100), min_size=2, max_size=6)


def rounds_of(**values: list[float]) -> tuple[Rounds, list[str]]:
    """Variants that take these seconds, one after the other; their first is the warm-up's."""
    said: list[str] = []

    def variant(name: str, given: Iterator[float]) -> Variant:
        def run() -> Sample:
            said.append(name)
            return {"ttft": next(given)}

        return Variant(name, run)

    return Rounds([variant(name, iter(given)) for name, given in values.items()]), said


def test_variants_take_turns_and_the_warm_up_does_not_count() -> None:
    rounds, said = rounds_of(slow=[99.0, 4.0, 6.0, 5.0], fast=[0.1, 2.0, 2.0, 1.0])
    steps: list[str] = []
    rounds.take(3, NEVER, steps.append)
    assert said == ["slow", "fast"] * 4
    assert steps[:3] == ["slow, warm-up", "fast, warm-up", "slow, round 1"]
    assert rounds.values("slow", "ttft") == [4.0, 6.0, 5.0]
    assert rounds.spread("fast", "ttft") == Spread(2.0, 1.0, 2.0)
    assert rounds.spread("fast", "tpot") is None
    assert rounds.speedup("fast", "slow", "ttft") == Speedup("slow", 3.0, 2.0, 5.0, True)


def test_a_round_that_was_not_finished_does_not_count() -> None:
    rounds, said = rounds_of(slow=[1.0, 1.0, 1.0], fast=[1.0, 1.0])  # the second round's `fast` fails
    with pytest.raises(StopIteration):
        rounds.take(2, NEVER, lambda _: None)
    assert said == ["slow", "fast"] * 3
    assert len(rounds.samples) == 1


def test_nothing_begins_after_the_deadline() -> None:
    rounds, said = rounds_of(slow=[1.0], fast=[1.0])
    rounds.take(5, PAST, lambda _: None)
    assert said == [] == rounds.samples
    assert rounds.speedup("fast", "slow", "ttft") is None


@given(slow=seconds, fast=seconds)
def test_a_speed_up_is_told_apart_exactly_where_all_rounds_agree(slow: list[float], fast: list[float]) -> None:
    count = min(len(slow), len(fast))
    gain = Speedup.of("slow", slow[:count], fast[:count])
    ratios = [one / other for one, other in zip(slow, fast, strict=False)]
    assert gain.told_apart == (all(ratio > 1 for ratio in ratios) or all(ratio < 1 for ratio in ratios))
    assert min(ratios) == gain.low <= gain.median <= gain.high == max(ratios)


def test_one_round_tells_nothing_apart() -> None:
    assert not Speedup.of("slow", [4.0], [1.0]).told_apart


def test_variants_with_other_numbers_of_samples_are_not_compared() -> None:
    rounds = Rounds(
        [], [{"full": {}, "fits": {"question": 1.0}}, {"full": {"question": 2.0}, "fits": {"question": 1.0}}]
    )
    assert rounds.speedup("full", "fits", "question") is None
