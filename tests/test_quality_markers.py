"""Rules of single benchmarks, case by case; the published evaluations to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adafv.benchmark_files import BENCHMARKS
from adafv.quality.markers import MARKERS, Choice, anls, choice, letter_said, mme, option_said, relaxed, textvqa
from adafv.quality.metrics import METRICS, accepted, mark, soft_vqa
from adafv.quality.normalisation import normalise
from adafv.quality.official import textvqa_words, vqa_sides, vqa_words


def test_every_rule_is_a_metric() -> None:
    assert set(MARKERS) < set(METRICS)


@pytest.mark.parametrize(("text", "letter"), [
    ("A", "A"), (" B ", "B"), ("A. red", "A"), ("The answer is C.", "C"), ("The answer is C", "C"),
    ("So: The answer is D. Truly.", "D"), ("The answer is A. The answer is B.", ""), ("a", ""), ("A.red", ""),
    ("red", ""), ("", ""), ("(A)", ""),
])  # fmt: skip
def test_letters_as_scienceqa_reads_them(text: str, letter: str) -> None:
    assert letter_said(text) == letter


@pytest.mark.parametrize(("text", "letter"), [
    ("B", "B"), ("(B)", "B"), ("B. blue", "B"), ("Answer: C!", "C"), ("A or B", ""), ("the blue one", "B"),
    ("red and blue", ""), ("E", ""), ("BLUE", "B"), ("blue " * 12, ""), ("", ""),
])  # fmt: skip
def test_options_as_mmbench_reads_them(text: str, letter: str) -> None:
    assert option_said(text, ("red", "blue", "green")) == letter


@pytest.mark.parametrize(("metadata", "right"), [
    ({"answer": "B"}, Choice("B", ())), ({"answer": 1, "choices": ["x", "y"]}, Choice("B", ("x", "y"))),
    ({"answer": "y", "options": ["x", "y"]}, Choice("B", ("x", "y"))), ({"answer": "yes"}, None), ({}, None),
    ({"answer": True, "choices": ["x", "y"]}, None), ({"answer": 5, "choices": ["x"]}, None),
])  # fmt: skip
def test_what_is_right_may_be_a_letter_a_number_or_the_option(metadata: dict[str, Any], right: Choice | None) -> None:
    assert choice(metadata) == right


@pytest.mark.parametrize(("text", "label", "worth"), [
    ("Yes", "yes", 1), ("yes.", "yes", 1), ("No, it is not", "no", 1), ("The yes", "yes", 0), ("Maybe no", "no", 0),
    ("not sure", "no", 1), ("", "no", 0),
])  # fmt: skip
def test_mme_looks_at_four_letters(text: str, label: str, worth: float) -> None:
    assert mme(text, label) == worth


@pytest.mark.parametrize(("text", "answers", "worth"), [
    ("STOP", ["stop"], 1), ("stcp", ["stop"], 0.75), ("st", ["stop"], 0), ("sto", ["stop", "store"], 0.75),
    ("two  words", ["Two words"], 1), ("", ["a"], 0),
])  # fmt: skip
def test_anls(text: str, answers: list[str], worth: float) -> None:
    assert anls(text, answers) == pytest.approx(worth)


@pytest.mark.parametrize(("text", "answer", "worth"), [
    ("105", "100", 1), ("106", "100", 0), ("-95", "-100", 1), ("5%", "0.05", 1), ("Blue", "blue", 1),
    ("blue", "red", 0), ("0", "0", 1), ("0.01", "0", 0), ("ten", "10", 0),
])  # fmt: skip
def test_numbers_within_five_percent(text: str, answer: str, worth: float) -> None:
    assert relaxed(text, [answer]) == worth


@pytest.mark.parametrize(("text", "vqa", "ours"), [
    ("A", "", "a"), ("the", "", "the"), ("I\u2019m", "i\u2019m", "i'm"), ("im", "im", "i'm"), ("Im", "im", "i'm"),
    ("somebody'd", "somebodyd", "somebody'd"), ("dont", "don't", "don't"), ("couldn'tve", "couldn't've", "couldn't've"),
    ("Two dogs.", "2 dogs", "2 dogs"), ("red, white", "red white", "red white"), ("", "", ""),
])  # fmt: skip
def test_the_published_words_and_ours(text: str, vqa: str, ours: str) -> None:
    assert (vqa_words(text), normalise(text)) == (vqa, ours)


def test_people_are_processed_where_they_differ() -> None:
    assert vqa_sides("The two", ("the two", "the two")) == ("2", ("the two", "the two"))
    assert vqa_sides("The two", ("two!", "the two")) == ("2", ("two ", "the two"))  # a space and all
    assert vqa_sides("Red", ("Red",) * 10) == ("red", ("red",) * 10)
    ten = accepted({"answers": ["the cat"] * 10})
    assert ten is not None and (mark("the cat", ten).vqa, mark("the cat", ten).exact) == (0, 1)


def test_textvqa_splits_the_s_off() -> None:
    assert textvqa_words("Let's go, Bob's?") == "let 's go bob 's"
    assert textvqa("bob's", ["Bob's"] * 3 + ["bob"] * 7) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)


@pytest.mark.parametrize("people", [["stop"], ["stop"] * 3, ["stop"] * 2 + ["go"], ["stop"] * 3 + ["go"] * 7])
def test_textvqa_of_fewer_than_ten_is_soft_vqa(people: list[str]) -> None:
    assert textvqa("Stop", people) == pytest.approx(soft_vqa("stop", tuple(people)))
    assert textvqa("stop", ["stop"]) == 1


def test_a_letter_that_a_reader_gives_is_not_taken_for_an_option_of_that_name(tmp_path: Path) -> None:
    table = tmp_path / "mm.tsv"
    image = "x" * 80
    table.write_text(f"index\tquestion\tA\tB\tC\tD\tanswer\timage\n1\tWhich?\tA\tB\tC\tD\tA\t{image}\n")
    rows = [row for _, row in BENCHMARKS["mmbench"].read(table, None)]
    rule = MARKERS["mmbench"]
    assert [row["answer"] for row in rows] == ["A", "D", "C", "B"]
    assert [rule.mark(row["answer"], rule.reference(row)) for row in rows] == [1, 1, 1, 1]
    assert choice({"answer": "A", "letter": "A", "choices": ["B", "A"]}) == Choice("A", ("B", "A"))
    assert choice({"answer": "y", "letter": "Z", "choices": ["x", "y"]}) == Choice("B", ("x", "y"))
