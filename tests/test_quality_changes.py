"""Intervals of shares and differences where few images changed: exact counts, theory, bad luck, and odd samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from adafv.quality.changes import Change, Part, change, images_needed, least_told, moments, parts
from adafv.quality.gamma import gamma_quantile
from adafv.quality.intervals import Resampling, interval, ratio


def poisson_below(most: int, mean: float) -> float:
    """The chance of at most so many."""
    return sum(math.exp(-mean + count * math.log(mean) - math.lgamma(count + 1)) for count in range(most + 1))


def change_of(gain: np.ndarray, images: np.ndarray) -> Change:
    found = moments(images, np.maximum(gain, 0), np.maximum(-gain, 0), np.ones(len(gain)))
    assert found is not None
    return change(found)


@pytest.mark.parametrize("shape", [1, 2, 7, 40, 199, 450])
@pytest.mark.parametrize("probability", [4e-4, 0.025, 0.5, 0.975, 0.9996])
def test_quantiles_of_whole_shapes_are_those_of_poisson_counts(shape: int, probability: float) -> None:
    at = gamma_quantile(shape, probability)
    assert 1 - poisson_below(shape - 1, at) == pytest.approx(probability, rel=3e-3, abs=1e-7)


def test_quantiles_rise_with_probability_and_shape() -> None:
    shapes, chances = (1.0, 1.01, 1.5, 3.3, 199.9, 200.0, 1e5), (1e-6, 0.01, 0.5, 0.99, 1 - 1e-6)
    table = np.array([[gamma_quantile(shape, chance) for chance in chances] for shape in shapes])
    assert (np.diff(table, axis=0) > 0).all() and (np.diff(table, axis=1) > 0).all()


@pytest.mark.parametrize("lost", [0, 1, 2, 5, 12])
def test_with_one_question_an_image_the_ends_are_those_of_a_poisson_count(lost: int) -> None:
    """Exactly, but for the variance, which is a binomial's: smaller by the share itself."""
    images = 1_000
    gain = np.where(np.arange(images) < lost, -1.0, 0.0)
    found = change_of(gain, np.arange(images))
    low = -found.low() * images
    assert poisson_below(lost, low) == pytest.approx(0.025, rel=0.1)
    assert found.value == -lost / images
    if lost == 0:
        assert low == pytest.approx(-math.log(0.025))
        assert -found.low() == pytest.approx(least_told(images))
    mirrored = change_of(-gain, np.arange(images))
    assert (mirrored.low(), mirrored.high()) == pytest.approx((-found.high(), -found.low()))


def test_many_changes_are_as_the_bootstrap_has_them() -> None:
    rng = np.random.default_rng(4)
    images = np.repeat(np.arange(900), rng.integers(1, 8, size=900))
    level = rng.uniform(0, 0.5, size=900)[images]
    gain = (rng.uniform(size=len(images)) < 0.1).astype(float) - (rng.uniform(size=len(images)) < level)
    found = change_of(gain, images)
    sums = Resampling(images).sums(np.stack([gain, np.ones_like(gain)], axis=1))
    drawn = interval(ratio(sums[:, 0], sums[:, 1]))
    assert drawn is not None and found.value == pytest.approx(drawn.value)
    assert (found.low(), found.high()) == pytest.approx((drawn.low, drawn.high), abs=0.1 * (drawn.high - drawn.low))
    assert found.high() - found.low() >= 0.97 * (drawn.high - drawn.low)


def within(lost: float, gained: float, images: int, questions: int, whole: float, tries: int = 1_500) -> float:
    """How often a true difference of `gained` - `lost` is below the lower end, over samples of so many images.

    Args:
        lost, gained: chances of a question.
        questions: about each image.
        whole: share of images whose questions are lost, and gained, together.
    """
    rng = np.random.default_rng(7)
    numbers, missed = np.repeat(np.arange(images), questions), 0

    def drawn(chance: np.ndarray) -> np.ndarray:
        together = rng.random((images, 1)) < whole
        return np.where(together, rng.random((images, 1)), rng.random((images, questions))) < chance

    for _ in range(tries):
        down = drawn(np.full((images, 1), lost))
        up = drawn(np.full((images, 1), gained / (1 - lost))) & ~down
        missed += change_of((up.astype(float) - down).ravel(), numbers).low() > gained - lost
    return missed / tries


@pytest.mark.parametrize(
    ("lost", "gained", "images", "questions", "whole"),
    [
        (0.01, 0, 500, 1, 0), (0.01, 0, 300, 1, 0), (0.03, 0.02, 500, 1, 0), (0.01, 0, 380, 6, 0),
        (0.01, 0, 380, 6, 1), (0.01, 0, 300, 6, 0.5), (0.03, 0.02, 380, 6, 0.3),
    ],
)  # fmt: skip
def test_the_lower_end_errs_no_more_often_than_promised(
    lost: float, gained: float, images: int, questions: int, whole: float
) -> None:
    """A pruner whose true loss is the tolerance is recommended when the lower end says that it lost less: 2.5 %."""
    allowed = 0.025 + 2.5 * math.sqrt(0.025 * 0.975 / 1_500)
    assert within(lost, gained, images, questions, whole) <= allowed


@pytest.mark.parametrize("lost", [0.012, 0.02, 0.05, 0.1, 0.2])
def test_the_lower_end_errs_no_more_often_where_a_few_images_have_most_of_the_questions(lost: float) -> None:
    rng, sizes, missed = np.random.default_rng(0), np.array([50] * 20 + [1] * 480), 0
    images = np.repeat(np.arange(500), sizes)
    for _ in range(600):
        missed += change_of(-(rng.random(500) < lost)[images].astype(float), images).low() > -lost + 1e-12
    assert missed / 600 <= 0.025 + 2.5 * math.sqrt(0.025 * 0.975 / 600)


def test_unequal_images_tell_as_much_as_fewer_equal_ones() -> None:
    images = np.repeat(np.arange(4), [3, 1, 1, 1])
    found = change_of(np.zeros(6), images)
    assert (found.images, found.effective) == (4, pytest.approx(3))
    assert change_of(np.zeros(12), np.repeat(np.arange(4), 3)).effective == pytest.approx(4)
    assert -change_of(np.zeros(6), images).low() == pytest.approx(least_told(3))


def test_the_lower_end_is_no_lower_than_it_has_to_be() -> None:
    assert within(0.02, 0.01, 2_000, 1, 0) > 0.01
    assert within(0.2, 0.19, 500, 3, 0.2) > 0.01


def shares_of(marks: Sequence[Sequence[float]], images: Sequence[int]) -> list[Part]:
    numbers = np.array(images)
    sums = [moments(numbers, np.zeros(len(one)), np.array(one), np.ones(len(one))) for one in marks]
    found = parts(sums)
    assert all(found)
    return found  # type: ignore[return-value]


def test_shares_stay_between_nothing_and_all() -> None:
    images = [number // 8 for number in range(64)]
    marks = [[0.0] * 64, [1.0] * 3 + [0.0] * 61, [1.0] * 32 + [0.0] * 32, [0.0] + [1.0] * 63, [1.0] * 64]
    found = shares_of(marks, images)
    for one in found:
        assert 0 <= one.lower() <= one.share <= one.upper() <= 1
    assert found[0].upper() <= found[1].upper()  # where nothing was lost is no less certain than where little was
    assert (found[0].lower(), found[-1].upper()) == (0, 1)
    assert found[-1].lower() < 1


def test_where_nothing_changed_is_no_less_certain_than_where_little_did() -> None:
    """Nor the other way round: many questions about an image, of which none, one, two, ... in turn are lost."""
    images = np.repeat(np.arange(100), 9)
    low = [change_of(-(np.arange(900) % 90 < 0.1 * lost).astype(float), images).low() for lost in range(0, 60, 10)]
    assert low == sorted(low, reverse=True) and low[0] == pytest.approx(-least_told(100))


def test_one_image_has_its_questions_told_apart() -> None:
    gain = np.array([-1.0, 0.0, 0.0, 0.0] * 30)
    alone = change_of(gain, np.zeros(120, dtype=int))
    assert alone == change_of(gain, np.arange(120))
    assert -0.4 < alone.low() < -0.25 < alone.high() < -0.1


def test_what_is_not_counted_is_no_image() -> None:
    """An image without a counted question says nothing, and a single other one is an image alone."""
    images, counted = np.array([0] * 50 + [1]), np.array([1.0] * 50 + [0.0])
    lost = np.array([1.0] + [0.0] * 50)
    nothing = np.zeros(51)
    found = moments(images, nothing, lost, counted)
    assert found == moments(np.arange(50), nothing[:50], lost[:50], counted[:50])
    assert moments(images, nothing, nothing, nothing) is None
    assert parts([None, found])[0] is None


def test_how_many_images_it_takes() -> None:
    assert least_told(500) == pytest.approx(3.689 / 500, abs=1e-5)
    assert (least_told(0), least_told(2)) == (1.0, 1.0)
    for tolerance in (0.001, 0.01, 0.05, 1.0):
        needed = images_needed(tolerance)
        assert needed is not None
        assert least_told(needed) <= tolerance + 1e-12 and (needed < 5 or least_told(needed - 1) > tolerance)
    assert images_needed(0.0) is None
