"""Where a bench of many questions says that the time went: each batch once, every second somewhere, bounds by stage."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adafv.bench import suite
from adafv.bench.geometries import geometry
from adafv.bench.machine import Machine
from adafv.bench.records import ALONE, STOCK, UNPRUNED, Bench, Row
from adafv.bench.stages import STAGES, Stages
from adafv.bench.subject import Subject
from adafv.records import Answer
from adafv.spent import Latency

MACHINE = Machine("a CPU", 1, None, 1e10, {"float32": 1e11, "bfloat16": 1e11}, {})
PLAN = suite.Plan(
    pruners=("adafv",), batch_sizes=(1, 4), per_picture=4, new_tokens=3, rounds=2, minutes=5, sections=("throughput",)
)


def subject() -> Subject:
    return Subject.random(geometry("tiny"), torch.float32, torch.device("cpu"), "sdpa", 2)


@pytest.fixture(scope="module")
def one() -> Subject:
    return subject()


@pytest.fixture(scope="module")
def answers(one: Subject) -> list[Answer]:
    return list(one.model.batch(one.questions(8, 4), one.run_settings("all", 3), batch_size=4))


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    found = Bench(MACHINE, {})
    suite.run([("tiny", subject)], PLAN, found, lambda _: None)
    return {row.variant: row for row in found.rows}


def test_every_second_of_a_question_is_some_stages(rows: dict[str, Row]) -> None:
    for name, row in rows.items():
        if STOCK in name:
            assert set(row.seconds) == {"question"}
            continue
        parts = sum(spread.median for stage, spread in row.seconds.items() if stage != "question")
        assert parts == pytest.approx(row.seconds["question"].median)  # of two rounds a median is a mean
        assert {*STAGES, "rest", "question"} == set(row.seconds)
        assert row.seconds["rest"].low >= 0  # or some second was counted twice
        assert row.seconds["vision"].low > 0
        assert row.seconds["decode"].low > 0


def test_times_of_a_batch_count_once(answers: list[Answer]) -> None:
    taken = Stages.of(answers)
    batches = {answer.latency_s.prefill: answer.latency_s for answer in answers if answer.latency_s is not None}
    assert len(batches) == 2
    for stage in STAGES:
        assert taken.seconds[stage] == pytest.approx(sum(getattr(latency, stage) for latency in batches.values()))
    assert (taken.batches, taken.steps) == (2, 2 * 2)
    again = [replace(answer, question_id=-1) for answer in answers]
    assert Stages.of([*answers, *again]).seconds == taken.seconds


def test_stages_are_asked_of_each_batch_and_not_of_each_moment() -> None:
    """Batches that differ in one stage alone are two."""
    latency = Latency(0.0, 1.0, 2.0, 3.0, 4.0, 10.0, 5.0, 5.0, 15.0)
    answer = next(iter(subject().model.batch(subject().questions(1, 1), subject().run_settings("all", 2))))
    pair = [replace(answer, latency_s=one) for one in (latency, replace(latency, decode=6.0))]
    assert Stages.of(pair).seconds == {"vision": 2.0, "score": 4.0, "prune": 6.0, "prefill": 8.0, "decode": 11.0}


def test_flops_are_those_that_the_answers_report(answers: list[Answer]) -> None:
    totals = [answer.flops.total for answer in answers if answer.flops is not None]
    assert Stages.of(answers).total == sum(totals)
    assert len(totals) == 8


def test_stock_encodes_a_picture_and_prefills_it_for_every_question(rows: dict[str, Row]) -> None:
    for size in (1, 4):
        stock, ours = rows[f"{STOCK}, batch {size}"], rows[f"{UNPRUNED}, batch {size}"]
        assert stock.flops["vision"] == pytest.approx(4 * ours.flops["vision"])
    alone, shared = rows[f"{ALONE}, batch 4"], rows[f"{UNPRUNED}, batch 4"]
    assert alone.flops["vision"] == shared.flops["vision"]
    assert alone.flops["prefill"] > 2 * shared.flops["prefill"]
    assert alone.flops["prefill"] == pytest.approx(rows[f"{STOCK}, batch 4"].flops["prefill"], rel=0.05)


def test_bounds_are_the_matrix_rate_or_the_weights_that_decoding_reads(one: Subject, answers: list[Answer]) -> None:
    taken, rate = Stages.of(answers), 1e11
    quick = replace(MACHINE, bytes_per_s=1e30)
    for stage, least in taken.bounds(one, quick).items():
        spent = taken.total if stage == "question" else taken.flops[stage]
        assert least == pytest.approx(spent / rate / 8)
    slow = replace(MACHINE, bytes_per_s=1.0)
    assert taken.bounds(one, slow)["decode"] == taken.steps * one.text_bytes / 8
    assert taken.bounds(one, slow)["prefill"] == taken.batches * one.text_bytes / 8
    assert taken.bounds(one, slow)["vision"] == taken.bounds(one, quick)["vision"] > 0
    unknown = replace(quick, matrix_flops={})  # of a dtype that was not probed
    assert taken.bounds(one, unknown)["question"] == pytest.approx(0, abs=1e-12)
    assert Stages.alone(answers[0], 8).bounds(one, slow)["decode"] == 2 * one.text_bytes / 8


def test_what_pruning_saves_is_set_beside_the_flops_that_it_saves(rows: dict[str, Row]) -> None:
    for size in (1, 4):
        pruned = next(row for name, row in rows.items() if name.endswith(f"batch {size}") and "pruner" in row.settings)
        unpruned = rows[f"{UNPRUNED}, batch {size}"]
        gain = next(one for one in pruned.speedups if one.over == unpruned.variant)
        assert pruned.flops_ratio == pytest.approx(unpruned.flops["total"] / pruned.flops["total"], rel=1e-6)
        assert pruned.attained == pytest.approx(gain.median / pruned.flops_ratio)
        assert unpruned.flops_ratio is None
