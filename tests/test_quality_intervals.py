"""Bootstrap intervals: against a slow one and theory, paired, over images, the same every time."""

from __future__ import annotations

import random

import numpy as np
import pytest

from adafv.quality.intervals import Interval, Resampling, interval, ratio


def mean_interval(values: np.ndarray, clusters: np.ndarray, **settings: int) -> Interval:
    sums = Resampling(clusters, **settings).sums(np.stack([values, np.ones_like(values)], axis=1))
    found = interval(ratio(sums[:, 0], sums[:, 1]))
    assert found is not None
    return found


def slow(values: list[float], clusters: list[int], resamples: int) -> tuple[float, float]:
    """Draws images one by one."""
    rng = random.Random(1)
    rows = {cluster: [v for v, c in zip(values, clusters, strict=True) if c == cluster] for cluster in set(clusters)}
    names = sorted(rows)
    means = []
    for _ in range(resamples):
        drawn = [value for name in rng.choices(names, k=len(names)) for value in rows[name]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


@pytest.fixture
def clustered() -> tuple[np.ndarray, np.ndarray]:
    """Marks that are alike within an image; images differ in how many questions they have."""
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60) * 7919, rng.integers(1, 9, size=60))
    level = rng.uniform(size=60)[clusters // 7919]
    return (rng.uniform(size=len(clusters)) < level).astype(float), clusters


def test_as_a_slow_bootstrap_over_images(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    values, clusters = clustered
    found = mean_interval(values, clusters, resamples=4000)
    low, high = slow(values.tolist(), clusters.tolist(), 4000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)


def test_as_theory_says_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=900)
    found = mean_interval(values, np.arange(900))
    error = 1.96 * values.std() / 30
    assert (found.low, found.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.006)


def test_questions_about_one_image_count_for_less(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    values, clusters = clustered
    apart, together = mean_interval(values, np.arange(len(values))), mean_interval(values, clusters)
    assert together.high - together.low > 1.1 * (apart.high - apart.low)


def test_the_same_every_time_however_it_is_cut_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from adafv.quality import intervals

    values = np.random.default_rng(0).uniform(size=50)
    once = mean_interval(values, np.arange(50))
    assert mean_interval(values, np.arange(50)) == once
    assert mean_interval(values, np.arange(50), seed=1) != once
    monkeypatch.setattr(intervals, "_AT_ONCE", 100)
    assert mean_interval(values, np.arange(50)).low == pytest.approx(once.low, abs=0.02)


def test_one_set_of_draws_for_every_call(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    """To the last bit (sums of whole numbers), where images differ in size: intervals are too coarse to show it."""
    values, clusters = clustered
    columns = np.stack([values, np.ones_like(values), np.arange(len(values)) % 7], axis=1)
    draws = Resampling(clusters)
    together = draws.sums(columns)
    assert len(np.unique(together[1:, 1])) > 50  # how many questions were drawn: the draws do differ
    for column in range(3):
        np.testing.assert_array_equal(draws.sums(columns[:, [column]])[:, 0], together[:, column])
    np.testing.assert_array_equal(Resampling(clusters).sums(columns), together)
    assert not np.array_equal(Resampling(clusters, seed=1).sums(columns)[1:], together[1:])


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    whole = (rng.uniform(size=400) < 0.6).astype(float)
    pruned = whole.copy()
    pruned[:4] = 0.0
    ones = np.ones_like(whole)
    sums = Resampling(np.arange(400)).sums(np.stack([whole, pruned, pruned - whole, ones], axis=1))
    both = [interval(ratio(sums[:, column], sums[:, 3])) for column in range(3)]
    assert all(both)
    alone, _, gain = both
    assert gain.high - gain.low < 0.3 * (alone.high - alone.low)  # type: ignore[union-attr]
    np.testing.assert_allclose(sums[:, 1] - sums[:, 0], sums[:, 2])  # one set of draws for all


def test_one_image_has_its_questions_drawn() -> None:
    values = np.array([0.0, 1.0] * 20)
    alone = mean_interval(values, np.zeros(40, dtype=int))
    assert alone.low < 0.5 < alone.high
    assert alone == mean_interval(values, np.arange(40))


def test_what_is_not_defined() -> None:
    nothing = np.zeros((5, 2))
    sums = Resampling(np.arange(5)).sums(nothing)
    assert interval(ratio(sums[:, 0], sums[:, 1])) is None
    seldom = nothing.copy()
    seldom[0] = 1.0  # in some draws there is nothing to divide by
    sums = Resampling(np.arange(5)).sums(seldom)
    assert interval(ratio(sums[:, 0], sums[:, 1])) == Interval(1.0, 1.0, 1.0)
