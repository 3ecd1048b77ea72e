"""From marked answers to points of the curve, by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from adafv.quality.intervals import Interval
from adafv.quality.points import Point, points
from adafv.quality.reference import Reference
from adafv.quality.sheet import Sheet
from adafv.records import Failure
from adafv.spent import Latency
from tests.cli_fakes import ANSWER

SETTINGS = [("none", "all"), ("adafv", "10%"), ("adafv", "50%")]


def line(setting: int, text: str | None, batch: int = 0, **changes: Any) -> dict[str, Any]:
    pruner, keep = SETTINGS[setting]
    latency = Latency(0.1, 0.5, 0.0, 0.0, 0.5 + batch / 10, 1.0 + batch / 10, 1.0, 0.1, 2.1)
    error = Failure("InputError", "too long", "") if text is None else None
    answer = replace(ANSWER, text=text, pruner=pruner, keep=keep, latency_s=latency, error=error, **changes)
    return answer.to_json()


def filled(rows: list[tuple[dict[str, Any], list[str | None]]], by: str | None = None) -> Sheet:
    """A sheet of questions, each about an image of its own, with an answer for each setting."""
    sheet = Sheet(SETTINGS, by)
    for image, (metadata, texts) in enumerate(rows):
        number = sheet.question(image, metadata)
        for setting, text in enumerate(texts):
            sheet.add(number, line(setting, text, batch=image // 2))
    return sheet


def values(found: list[Point], name: str) -> list[float | None]:
    return [None if (one := getattr(point.quality, name)) is None else pytest.approx(one.value) for point in found]


def test_accuracy_agreement_and_paired_differences() -> None:
    found = points(filled([
        ({"answer": "cat"}, ["cat", "dog", "Cat."]),
        ({"answer": ["two", "3"]}, ["2", "2", "2"]),
        ({"answer": "red"}, ["blue", "red", "blue"]),
        ({"answer": "sun"}, ["sun", "moon", "sun"]),
    ]))  # fmt: skip
    assert values(found, "accuracy") == [0.75, 0.5, 0.75]
    assert values(found, "agreement") == [1.0, 0.25, 1.0]
    assert values(found, "difference") == [0.0, -0.25, 0.0]
    assert [(point.pruner, point.keep) for point in found] == SETTINGS
    assert found[1].quality.accuracy and found[1].quality.accuracy.metric == "exact"
    low, high = found[1].quality.difference.low, found[1].quality.difference.high  # type: ignore[union-attr]
    assert -1 <= low < -0.25 < high <= 1
    assert found[0].quality.difference == Interval(0.0, 0.0, 0.0)
    # Nothing changed in four images, which says little about a fifth.
    assert found[2].quality.difference is not None
    assert found[2].quality.difference.low == -found[2].quality.difference.high == pytest.approx(-3.689 / 4, abs=1e-4)
    assert found[2].quality.agreement is not None and found[2].quality.agreement.low < 0.25


def test_what_failed_is_out_of_its_setting_and_of_all_comparisons_with_it() -> None:
    found = points(filled([
        ({"answer": "cat"}, ["cat", None, "cat"]),
        ({"answer": "dog"}, [None, "dog", "cat"]),
        ({"answer": "sun"}, ["sun", "moon", "sun"]),
    ]))  # fmt: skip
    assert [(point.questions, point.failed) for point in found] == [(2, 1), (2, 1), (3, 0)]
    assert values(found, "accuracy") == [1.0, 0.5, pytest.approx(2 / 3)]
    assert values(found, "agreement") == [1.0, 0.0, 1.0]
    assert values(found, "difference") == [0.0, -1.0, 0.0]


def test_without_answers_agreement_is_the_quality() -> None:
    found = points(filled([({}, ["a cat", "cat", "dog"]), ({"kind": "x"}, ["sun", "sun", "moon"])]))
    assert values(found, "accuracy") == [None, None, None]
    assert values(found, "difference") == [0.0, 0.0, -1.0]
    assert [point.quality.value for point in found] == [1.0, 1.0, 0.0]


def test_only_lines_that_came_with_an_answer_count_for_accuracy() -> None:
    found = points(filled([({"answer": "cat"}, ["cat", "dog", "cat"]), ({}, ["sun", "sun", "sun"])]))
    assert [point.quality.accuracy.questions for point in found if point.quality.accuracy] == [1, 1, 1]
    assert values(found, "accuracy") == [1.0, 0.0, 1.0]
    assert values(found, "agreement") == [1.0, 0.5, 1.0]


def test_yes_and_no() -> None:
    found = points(filled([
        ({"answer": "yes"}, ["yes", "yes", "no"]),
        ({"answer": "yes"}, ["yes", "no", "no"]),
        ({"answer": "no"}, ["no", "Yes, it is", "no"]),
        ({"label": "no"}, ["no", "no", "no"]),
    ]))  # fmt: skip
    assert [point.quality.accuracy.metric for point in found if point.quality.accuracy] == ["yes-no"] * 3
    assert values(found, "accuracy") == [1.0, 0.5, 0.5]
    some = found[1].quality.yes_no
    assert some is not None and some.f1 and some.precision and some.recall and some.yes_share
    assert [some.f1.value, some.precision.value, some.recall.value, some.yes_share.value] == [0.5, 0.5, 0.5, 0.5]
    never = found[2].quality.yes_no
    assert never is not None and never.precision is None and never.f1 is not None and never.f1.value == 0


def test_soft_vqa_where_people_answered() -> None:
    people = {"answers": ["cat"] * 2 + ["dog"] * 8}
    found = points(filled([(people, ["dog", "cat", "bird"])]))
    assert values(found, "accuracy") == [1.0, 0.6, 0.0]
    assert values(points(filled([(people, ["dog", "cat", "bird"])]), "exact"), "accuracy") == [1.0, 1.0, 0.0]


def test_groups() -> None:
    sheet = filled([
        ({"answer": "cat", "kind": "b"}, ["cat", "dog", "cat"]),
        ({"answer": "sun", "kind": "a"}, ["sun", "sun", "sun"]),
        ({"answer": "sun"}, ["sun", "sun", "sun"]),
    ], by="kind")  # fmt: skip
    groups = points(sheet)[1].groups
    assert groups is not None and list(groups) == ["-", "a", "b"]
    assert [quality.accuracy.value for quality in groups.values() if quality.accuracy] == [1.0, 1.0, 0.0]


def test_costs_are_means_and_medians_and_throughput_is_that_of_batches() -> None:
    found = points(filled([({}, ["a", "a", "a"])] * 4))[0]
    assert found.tokens == {"visual": 576, "kept": 144, "text": 42, "generated": 2}
    assert found.flops == {"total": 2_976_209_000_000, "unpruned_total": 8_640_000_000_000}
    assert found.memory_bytes == {"kv_cache": 98_566_144, "unpruned_kv_cache": 325_058_560}
    assert found.latency_s is not None and found.latency_s["ttft"] == pytest.approx(1.05)
    assert found.questions_per_s == pytest.approx(4 / (1.0 + 1.0 + 1.1 + 1.0))  # two batches of two


def test_json_has_a_stable_order_and_nothing_that_is_no_json() -> None:
    found = points(filled([({"answer": "yes", "kind": "x"}, ["yes", None, "no"])], by="kind"))
    objects = [json.loads(json.dumps(point.to_json(), allow_nan=False)) for point in found]
    assert list(objects[0]) == [
        "pruner", "keep", "questions", "failed", "accuracy", "yes_no", "agreement", "difference", "tokens", "flops",
        "latency_s", "questions_per_s", "memory_bytes", "recommended", "macro", "groups",
    ]  # fmt: skip
    assert objects[1]["accuracy"] is None and objects[1]["latency_s"] is None
    assert list(objects[0]["groups"]["x"]) == ["accuracy", "yes_no", "agreement", "difference"]


def test_nothing_answered_gives_no_points() -> None:
    sheet = Sheet(SETTINGS)
    assert points(sheet) == []
    sheet.question(1, {"answer": "cat"})
    assert points(sheet) == []


def test_rows_that_were_read_ahead_only_change_nothing() -> None:
    rows: list[tuple[dict[str, Any], list[str | None]]] = [({"answer": "cat"}, ["cat", "dog", "cat"])] * 5
    whole, ahead = filled(rows), filled(rows)
    ahead.question(77, {"answer": "dog"})
    assert points(whole) == points(ahead)
    assert ahead.images == 5


def test_of_very_many_groups_the_largest() -> None:
    rows: list[tuple[dict[str, Any], list[str | None]]] = [({"n": number}, ["a", "a", "a"]) for number in range(60)]
    groups = points(filled([*rows, ({"n": 59}, ["a", "a", "a"])], by="n"))[0].groups
    assert groups is not None and len(groups) == 40 and "59" in groups


def test_an_image_that_failed_beside_a_single_other_one_hides_no_chance() -> None:
    sheet = Sheet(SETTINGS)
    said: list[list[str | None]] = [["cat", "cat" if number % 4 else "dog", "cat"] for number in range(8)]
    said.append([None] * 3)
    for place, texts in enumerate(said):
        number = sheet.question(place // 8, {"answer": "cat"})
        for setting, text in enumerate(texts):
            sheet.add(number, line(setting, text))
    found = points(sheet)[1]
    assert (found.questions, found.failed) == (8, 1)
    difference = found.quality.difference
    assert difference is not None and difference.low < difference.value < difference.high


def test_groups_have_the_names_that_json_has() -> None:
    rows: list[tuple[dict[str, Any], list[str | None]]] = [
        ({"n": name}, ["a"] * 3) for name in (3, True, {"x": [1]}, "3")
    ]
    groups = points(filled(rows, by="n"))[0].groups
    assert groups is not None and set(groups) == {"3", "true", '{"x": [1]}'}


def test_nothing_but_failures() -> None:
    found = points(filled([({"answer": "cat"}, [None, None, None])]))
    assert [point.quality.value for point in found] == [None] * 3


def test_paired_differences_to_another_setting() -> None:
    sheet = filled([
        ({"answer": "cat"}, ["cat", "dog", "cat"]),
        ({"answer": "red"}, ["blue", "red", "blue"]),
        ({"answer": "sun"}, ["sun", "moon", "sun"]),
        ({"answer": "sun"}, ["sun", "moon", "sun"]),
    ])  # fmt: skip
    whole, little, more = points(sheet, against=Reference("adafv", "50%"))
    assert whole.quality.against is None and more.quality.against is None
    found = little.quality.against
    assert found is not None and (found.pruner, found.keep, found.value) == ("adafv", "50%", -0.5)
    difference = little.quality.difference
    assert difference is not None and (found.low, found.high) == (difference.low, difference.high)
    assert little.to_json()["against"]["keep"] == "50%" and "against" not in more.to_json()
    assert all(point.quality.against is None for point in points(sheet, against=Reference("adafv")))
    assert points(sheet)[1].quality.against is None


def test_precision_is_of_what_was_said_and_recall_of_what_is_so() -> None:
    said = ["yes", "yes", "no", "no", "yes", "no"]
    right = ["yes", "yes", "yes", "yes", "no", "no"]
    found = points(filled([({"answer": one}, [one, other, one]) for one, other in zip(right, said, strict=True)]))
    some = found[1].quality.yes_no
    assert some is not None and some.f1 and some.precision and some.recall and some.yes_share
    assert some.precision.value == pytest.approx(2 / 3)
    assert some.recall.value == pytest.approx(2 / 4)
    assert some.f1.value == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert some.yes_share.value == pytest.approx(3 / 6)


def rounds(*texts: str | None, rotations: int | None = 2) -> Sheet:
    """Two rotations of a question, of which the last ones may not be asked; `None` failed."""
    sheet, known = Sheet([("none", "all")], metric="mmbench"), {"rotations": rotations} if rotations else {}
    for text, letter in zip(texts, "AB", strict=False):
        number = sheet.question(1, {"circular": 1, "letter": letter, "choices": ["x", "y"], **known})
        sheet.add(number, line(0, text) | {"pruner": "none", "keep": "all", "error": None if text else "no"})
    return sheet


def test_a_round_counts_when_all_its_rotations_were_asked() -> None:
    def accuracy(sheet: Sheet) -> tuple[float, int] | None:
        (found,) = points(sheet, "mmbench")
        return found.quality.accuracy and (found.quality.accuracy.value, found.quality.accuracy.questions)

    assert accuracy(rounds("A", "B")) == (1, 1) and accuracy(rounds("A", "A")) == (0, 1)
    assert accuracy(rounds("A")) is None
    assert accuracy(rounds("A", rotations=None)) == (1, 1)
    assert accuracy(rounds(None, "B")) == accuracy(rounds("A", None)) == accuracy(rounds(None, None)) == (0, 1)
    half = rounds("A")
    half.question(1, {"circular": 1, "letter": "B", "rotations": 2})
    assert accuracy(half) is None
