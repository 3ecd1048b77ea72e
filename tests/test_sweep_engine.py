"""Several settings in one stream: each image encoded once, the same answers as alone, costs as if alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import adafv
from adafv import Answer, BatchSettings, Question, RunSettings
from adafv.errors import OutOfMemoryError
from adafv.pipeline import Pipeline
from adafv.settings import LoadSettings
from adafv.streaming.runs import Asked, effective, grid, unpruned
from tests import tiny
from tests.conftest import noise
from tests.spying import listening
from tests.test_streaming import WORDS, texts

RUN = RunSettings(max_new_tokens=3)
RUNS = grid(RUN, ["adafv", "saliency"], ["2", "25%", "all", "100"])
NAMES = [("none", "all"), ("adafv", "2"), ("adafv", "25%"), ("adafv", "100"),
         ("saliency", "2"), ("saliency", "25%"), ("saliency", "100")]  # fmt: skip


def questions(count: int, images: int) -> list[Question]:
    return [Question(i, noise(60, 60, seed=i % images), " ".join(WORDS[: 1 + (7 * i) % 12])) for i in range(count)]


def column(rows: Sequence[Sequence[Answer]], place: int) -> list[Answer]:
    return [row[place] for row in rows]


def names(rows: Sequence[Sequence[Answer]]) -> list[list[tuple[str | None, str | None]]]:
    return [[(answer.pruner, answer.keep) for answer in row] for row in rows]


def charged(answers: Sequence[Answer]) -> list[object]:
    return [a.question_id for a in answers if a.flops is not None and a.flops.vision]


def test_a_grid_begins_with_the_unpruned_and_has_each_setting_once() -> None:
    assert [(run.pruner, run.budget.text) for run in RUNS] == NAMES
    assert grid(RUN, ["none"], ["5%"]) == [unpruned(RUN)]
    assert len(grid(RUN, ["adafv", "adafv"], ["5%", "5%"])) == 2
    assert [run.keep for run in grid(RUN, ["adafv"], ["25%", "25.0%", " 8", "008"])] == ["all", "25%", "8"]
    assert effective(RUNS[3], 16) == effective(RUNS[0], 16) == effective(RUNS[6], 16)
    assert effective(RUNS[1], 8) == effective(RUNS[2], 8) != effective(RUNS[2], 16)
    assert effective(RunSettings(pruner="none", keep="25%"), 16) == effective(RunSettings(keep="all"), 16)


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_answers_are_those_of_each_setting_alone(llava: adafv.Model, batch_size: int) -> None:
    asked = questions(11, 4)
    rows = list(llava.sweep(asked, RUNS, BatchSettings(batch_size=batch_size)))
    assert names(rows) == [NAMES] * 11
    for place, run in enumerate(RUNS):
        alone = list(llava.stream(asked, run))
        assert texts(column(rows, place)) == texts(alone)


def test_each_image_is_encoded_once_for_any_number_of_settings(llava: adafv.Model) -> None:
    stream = llava.sweep(questions(20, 4), RUNS, BatchSettings(batch_size=3))
    with listening(llava) as heard:
        rows = list(stream)
    assert (stream.stats.images_encoded, stream.stats.cache_hits) == (4, 16)
    assert heard.vision_calls <= 4
    charges = {tuple(charged(column(rows, place))) for place in range(len(RUNS))}
    assert len(charges) == 1 and len(charges.pop()) == 4  # to every setting, for the same questions


def test_costs_are_those_that_a_setting_has_alone(llava: adafv.Model) -> None:
    asked = questions(6, 2)
    rows = list(llava.sweep(asked, RUNS, BatchSettings(batch_size=2)))
    for place, run in enumerate(RUNS):
        alone = list(llava.stream(asked, run, BatchSettings(batch_size=2)))
        assert [a.flops for a in column(rows, place)] == [a.flops for a in alone]
    for row in rows:
        assert len({answer.latency_s.vision for answer in row if answer.latency_s}) == 1
        assert len({answer.latency_s.preprocess for answer in row if answer.latency_s}) == 1


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunSettings]:
    """The settings of all batches that are run, warming up included."""
    ran: list[RunSettings] = []
    run = Pipeline.begin

    def counting(self: Pipeline, rows: list, settings: RunSettings, *others: object) -> object:  # type: ignore[type-arg]
        ran.append(settings)
        return run(self, rows, settings, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "begin", counting)
    return ran


def test_settings_that_do_the_same_are_run_once(llava: adafv.Model, ran: list[RunSettings]) -> None:
    (row,) = llava.sweep(questions(1, 1), RUNS)
    measured = [settings for settings in ran if settings in RUNS]  # the others only warm up
    assert measured == [RUNS[0], RUNS[1], RUNS[2], RUNS[4], RUNS[5]]
    assert len(ran) == 2 * len(measured)
    whole, same = row[0], row[3]
    assert replace(same, pruner="none", keep="all") == whole
    assert same.answer_id != whole.answer_id


def test_settings_take_turns(llava: adafv.Model, ran: list[RunSettings]) -> None:
    runs = RUNS[:3]
    rows = list(llava.sweep(questions(4, 1), runs, BatchSettings(batch_size=1)))
    measured = [runs.index(settings) for settings in ran if settings in runs]
    assert measured == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]
    assert names(rows) == [NAMES[:3]] * 4


def test_a_question_may_ask_for_some_of_the_settings(llava: adafv.Model) -> None:
    asked = questions(4, 1)
    given = Answer(question_id="bad", prompt="", text=None, model_id="x")
    some, none, whole = (RUNS[1], RUNS[4]), (), (RUNS[0],)
    items = [Asked(asked[0], some), asked[1], Asked(asked[2], none), [given, given], Asked(asked[3], whole)]
    with listening(llava) as heard:
        rows = list(llava.sweep(items, RUNS))
    assert [[a.keep for a in row] for row in rows[:1]] == [["2", "2"]]
    assert [len(row) for row in rows] == [2, len(RUNS), 0, 2, 1]
    assert heard.vision_calls == 1
    everything = list(llava.sweep(asked, RUNS))
    assert texts(rows[0]) == texts([everything[0][1], everything[0][4]])
    assert charged([rows[0][0], rows[1][1]]) == [0]  # charged to each setting once
    assert charged([rows[1][0], rows[4][0]]) == [1]


def test_a_setting_that_the_stream_does_not_know_is_refused(llava: adafv.Model) -> None:
    stream = llava.sweep([Asked(questions(1, 1)[0], (RUNS[2],))], RUNS[:2])
    with pytest.raises(adafv.InputError, match="other settings"):
        next(stream)


def test_a_question_that_fails_under_one_setting_fails_there_only(llava: adafv.Model) -> None:
    """With every visual token the prompt is longer than the context."""
    asked = questions(3, 2)
    limit = bisect_left(range(600), True, lo=1, key=lambda length: _fails(llava, length))
    asked[1] = Question(1, asked[1].image, "? " * limit)
    rows = list(llava.sweep(asked, RUNS[:3], BatchSettings(batch_size=4)))
    assert [[a.error and a.error.type for a in row] for row in rows] == [
        [None] * 3, ["InputError", None, None], [None] * 3,
    ]  # fmt: skip


def _fails(llava: adafv.Model, length: int) -> bool:
    (answer,) = llava.stream([Question(0, noise(60, 60), "? " * length)], RUNS[0])
    return answer.error is not None


def test_the_charge_goes_to_the_first_question_that_is_answered_under_each_setting(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pipeline.begin

    def picky(self: Pipeline, rows: list, settings: RunSettings, *others: object) -> object:  # type: ignore[type-arg]
        if settings.budget.text == "2" and any(row.prompt.text_tokens > 60 for row in rows):
            raise OutOfMemoryError("out of memory", "less")
        return run(self, rows, settings, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "begin", picky)
    picture = noise(60, 60)
    asked = [Question(0, picture, "what? " * 30), *(Question(i, picture, "what?") for i in (1, 2))]
    rows = list(llava.sweep(asked, RUNS[:2], BatchSettings(batch_size=4)))
    assert [a.error is None for a in column(rows, 1)] == [False, True, True]
    assert charged(column(rows, 0)) == [0]
    assert charged(column(rows, 1)) == [1]


def test_out_of_memory_under_one_setting_halves_the_batches_and_loses_nothing(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sizes = Pipeline.begin, []

    def small(self: Pipeline, rows: list, settings: RunSettings, *others: object) -> object:  # type: ignore[type-arg]
        sizes.append(len(rows))
        if settings.pruner == "none" and len(rows) > 2:
            raise OutOfMemoryError("out of memory", "less")
        return run(self, rows, settings, *others)  # type: ignore[arg-type]

    asked = questions(20, 6)
    wanted = [texts(row) for row in llava.sweep(asked, RUNS[:3])]
    monkeypatch.setattr(Pipeline, "begin", small)
    stream = llava.sweep(asked, RUNS[:3], BatchSettings(batch_size=8))
    assert [texts(row) for row in stream] == wanted
    assert stream.stats.batch_size == 2 and max(sizes[10:]) <= 8
    assert stream.stats.images_encoded == 6


def test_an_unreadable_image_fails_under_every_setting(llava: adafv.Model) -> None:
    rows = list(llava.sweep([Question(0, b"no image", "what?"), *questions(2, 1)], RUNS[:3]))
    assert [[a.error is not None for a in row] for row in rows] == [[True] * 3, [False] * 3, [False] * 3]
    assert names(rows) == [NAMES[:3]] * 3


def test_crops_make_a_budget_everything_for_some_images_only(tmp_path: Path) -> None:
    """LLaVA-NeXT: what covers a small image does not cover a large one."""
    model = adafv.load(LoadSettings(str(tiny.save_llava_next(tmp_path / "next")), dtype="float32"))
    runs = grid(RUN, ["adafv"], ["40"])
    asked = [Question(0, noise(50, 50), "what?"), Question(1, noise(160, 50), "what?")]
    rows = list(model.sweep(asked, runs))
    counts = [[a.tokens.visual - a.tokens.kept for a in row if a.tokens] for row in rows]
    assert counts[0][0] == counts[1][0] == 0 and counts[1][1] > 0
    for place, run in enumerate(runs):
        assert texts(column(rows, place)) == texts(list(model.stream(asked, run)))


def test_settings_that_differ_in_more_are_refused(llava: adafv.Model) -> None:
    with pytest.raises(adafv.InputError, match="crop_budget, select and tiles alone"):
        llava.sweep([], [RUN, replace(RUN, seed=1)])
    with pytest.raises(adafv.InputError, match="crop_budget, select and tiles alone"):
        llava.sweep([], [])
    with pytest.raises(adafv.InputError, match="compare"):
        llava.sweep([], [replace(RUN, compare=True)])
