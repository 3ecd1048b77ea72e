"""Marks for answers, by hand, and which metric a file calls for."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from adafv.quality.metrics import Accepted, accepted, called_for, exact, mark, says_yes, soft_vqa


@pytest.mark.parametrize(
    ("given", "answers"),
    [
        ("The Cat.", ("cat",)),
        (2, ("2",)),
        (2.0, ("2",)),
        (2.5, ("2.5",)),
        (True, ("yes",)),
        (False, ("no",)),
        (["cat", "dog"], ("cat", "dog")),
        ([1, "two"], ("1", "2")),
        ([{"answer": "cat", "answer_id": 1}], ("cat",)),
    ],
)
def test_what_is_accepted(given: Any, answers: tuple[str, ...]) -> None:
    found = accepted({"answer": given})
    assert found is not None and found.answers == answers


@pytest.mark.parametrize("given", [None, "", "  ", [], {}, {"answer": "cat"}, [None], [[]]])
def test_what_is_no_answer(given: Any) -> None:
    assert accepted({"answer": given}) is None
    assert accepted({"kind": "color"}) is None


def test_several_peoples_answers_are_told_from_several_right_ones() -> None:
    assert not accepted({"answer": ["cat", "kitten"]}).human  # type: ignore[union-attr]
    assert accepted({"answers": ["cat"] * 3}).human  # type: ignore[union-attr]
    assert accepted({"answers": [str(number) for number in range(10)]}).human  # type: ignore[union-attr]
    assert accepted({"answers": [{"answer": "cat", "answer_id": 1}]}).human  # type: ignore[union-attr]
    assert not accepted({"answer": ["2", "two"]}).human  # type: ignore[union-attr]
    assert mark("Two.", accepted({"answer": ["2", "two"]})).exact == 1  # type: ignore[arg-type]


def test_what_is_nested_as_no_answer_is_none() -> None:
    assert accepted({"answer": [["cat"], ["dog"]]}).answers == ("cat", "dog")  # type: ignore[union-attr]
    deep: Any = "cat"
    for _ in range(900):
        deep = [deep]
    assert accepted({"answer": deep}) is None


def test_of_several_keys_the_richest_counts() -> None:
    assert accepted({"label": "no", "answer": "cat", "answers": ["cat", "dog"]}).answers == ("cat", "dog")  # type: ignore[union-attr]
    assert accepted({"label": "no", "answer": "cat", "answers": []}).answers == ("cat",)  # type: ignore[union-attr]
    assert accepted({"label": "no"}).yes is False  # type: ignore[union-attr]


def test_exact() -> None:
    assert exact("cat", ("dog", "cat")) == 1
    assert exact("cats", ("dog", "cat")) == 0


@pytest.mark.parametrize("same", range(11))
def test_soft_vqa_is_the_mean_over_all_subsets_of_nine(same: int) -> None:
    people = ("cat",) * same + ("dog",) * (10 - same)
    subsets = [min(nine.count("cat") / 3, 1) for nine in combinations(people, 9)]
    assert soft_vqa("cat", people) == pytest.approx(sum(subsets) / 10)


def test_soft_vqa_as_published() -> None:
    published = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 10: 1.0}
    for same, value in published.items():
        assert soft_vqa("cat", ("cat",) * same + ("dog",) * (10 - same)) == pytest.approx(value)
    assert soft_vqa("cat", ("cat",)) == 1


@pytest.mark.parametrize("people", range(2, 15))
def test_what_all_people_said_is_right_however_few_they_are(people: int) -> None:
    """A third of those who are left when one is left out: three, of ten."""
    assert soft_vqa("cat", ("cat",) * people) == 1
    worth = [soft_vqa("cat", ("cat",) * same + ("dog",) * (people - same)) for same in range(people + 1)]
    assert worth[0] == 0 and worth == sorted(worth)


def test_soft_vqa_of_few_people() -> None:
    assert soft_vqa("red", ("red", "blue")) == 0.5
    assert soft_vqa("red", ("red", "blue", "blue")) == pytest.approx(2 / 3)
    assert soft_vqa("red", ("red", "blue", "blue", "blue", "blue")) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("yes", True), ("Yes, there is.", True), ("no", False), ("No.", False), ("There is not. Yes!", False),
        ("Yes. There is no doubt", True), ("nothing", True), ("red", True), ("", True), ("NO", False),
    ],
)  # fmt: skip
def test_yes_as_pope_reads_it(text: str, yes: bool) -> None:
    assert says_yes(text) is yes


def test_a_mark() -> None:
    found = mark("Yes, it is.", Accepted(("yes",)))
    assert (found.exact, found.vqa, found.said_yes) == (0, 0, True)
    assert mark("Two!", Accepted(("2", "3"))).exact == 1


@pytest.mark.parametrize(
    ("counts", "metric"),
    [((4, 4, 0), "yes-no"), ((4, 3, 0), "exact"), ((4, 0, 4), "vqa"), ((4, 0, 3), "exact"), ((0, 0, 0), "exact")],
)
def test_the_data_calls_for_a_metric(counts: tuple[int, int, int], metric: str) -> None:
    assert called_for(*counts) == metric
