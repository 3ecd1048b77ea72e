"""A stream of questions: in order, each image encoded once, nothing waits that need not, nothing is lost."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import adafv
from adafv import Answer, BatchSettings, Question, RunSettings
from adafv.errors import CheckpointError
from adafv.pipeline import Pipeline
from adafv.streaming import prefetching
from tests.conftest import noise
from tests.spying import listening

RUN = RunSettings(keep="25%", max_new_tokens=3)
WORDS = "what color is the sign in the picture that is behind the big blue house".split()


def questions(count: int, images: int) -> list[Question]:
    return [Question(i, noise(60, 60, seed=i % images), " ".join(WORDS[: 1 + (7 * i) % 12])) for i in range(count)]


def texts(answers: list[Answer]) -> list[tuple[object, str | None, object, object]]:
    return [(a.question_id, a.text, a.tokens, a.error) for a in answers]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, "auto"])
def test_answers_do_not_depend_on_the_batch(llava: adafv.Model, batch_size: int) -> None:
    asked = questions(17, 5)
    alone = [next(llava.stream([question], RUN)) for question in asked]
    assert texts(list(llava.stream(asked, RUN, BatchSettings(batch_size=batch_size)))) == texts(alone)


def test_each_image_is_encoded_once_however_its_questions_are_spread(llava: adafv.Model) -> None:
    stream = llava.stream(questions(20, 4), RUN, BatchSettings(batch_size=3))
    with listening(llava) as heard:
        answers = list(stream)
    assert stream.stats.images_encoded == 4
    assert stream.stats.cache_hits == 16
    assert heard.vision_calls <= 4
    charged = [a for a in answers if a.flops is not None and a.flops.vision]
    assert len(charged) == 4  # so that a run's totals are true


def test_a_cache_that_holds_nothing_changes_no_answer(llava: adafv.Model) -> None:
    asked = questions(12, 3)
    stream = llava.stream(asked, RUN, BatchSettings(batch_size=2, cache_bytes=0))
    assert texts(list(stream)) == texts(list(llava.stream(asked, RUN)))
    assert stream.stats.images_encoded > 3


def test_files_and_bytes_of_equal_content_share_an_encoding(llava: adafv.Model, tmp_path: Path) -> None:
    noise(60, 60).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content)
    sources = [tmp_path / "a.png", str(tmp_path / "b.png"), content]
    stream = llava.stream([Question(i, source, "what?") for i, source in enumerate(sources)], RUN)
    assert len(list(stream)) == 3 and stream.stats.images_encoded == 1


def test_answers_among_the_questions_are_passed_through_in_their_place(llava: adafv.Model) -> None:
    given = Answer(question_id="bad", prompt="", text=None, model_id="x")
    items: list[Question | Answer] = [*questions(3, 1), given, *questions(2, 1)]
    answers = list(llava.stream(items, RUN, BatchSettings(batch_size=4)))
    assert [a.question_id for a in answers] == [0, 1, 2, "bad", 0, 1]
    assert answers[3] is given


def test_a_slow_input_is_answered_line_by_line(llava: adafv.Model) -> None:
    lines: queue.Queue[Question | None] = queue.Queue()

    def typed() -> Iterator[Question]:
        while (question := lines.get()) is not None:
            yield question

    for batch_size in (1, 8):  # a larger batch must not wait to be full either
        stream = llava.stream(typed(), RUN, BatchSettings(batch_size=batch_size))
        for question in questions(3, 3):
            lines.put(question)
            assert next(stream).question_id == question.question_id
        lines.put(None)
        assert list(stream) == []


def test_the_input_is_read_ahead_by_a_bounded_number(llava: adafv.Model) -> None:
    read = []

    def endless() -> Iterator[Question]:
        for number in range(10**9):
            read.append(number)
            yield Question(number, noise(60, 60), "what?")

    stream = llava.stream(endless(), RUN, BatchSettings(batch_size=2, ahead=3))
    for _ in range(10):
        next(stream)
    stream.close()
    assert len(read) <= 10 + 2 * 3 + 2


def test_stop_finishes_the_running_batch_and_ends(llava: adafv.Model) -> None:
    stop = threading.Event()

    def stopping() -> Iterator[Question]:
        for question in questions(100, 2):
            if question.question_id == 40:
                stop.set()
            yield question

    answers = list(llava.stream(stopping(), RUN, BatchSettings(batch_size=4), stop))
    assert [a.question_id for a in answers] == list(range(len(answers)))
    assert len(answers) < 60


def test_an_error_of_the_input_comes_after_the_answers_before_it(llava: adafv.Model) -> None:
    def broken() -> Iterator[Question]:
        yield from questions(3, 1)
        raise adafv.InputError("line 4 is torn", "")

    stream = llava.stream(broken(), RUN, BatchSettings(batch_size=2))
    assert [next(stream).question_id for _ in range(3)] == [0, 1, 2]
    with pytest.raises(adafv.InputError, match="line 4 is torn"):
        next(stream)


def test_a_prompt_longer_than_the_context_fails_alone(llava: adafv.Model) -> None:
    asked = [Question(i, noise(60, 60), "what? " * (300 if i == 2 else 1)) for i in range(5)]
    answers = list(llava.stream(asked, RUN, BatchSettings(batch_size=4)))
    assert [a.error and a.error.type for a in answers] == [None, None, "InputError", None, None]


def test_a_failure_keeps_its_own_words(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess = Pipeline.preprocess

    def picky(self: Pipeline, image: object, *others: object) -> object:
        if image.size == (70, 60):  # type: ignore[attr-defined]
            raise CheckpointError("the image processor made 3 crops", "fetch it again")
        return preprocess(self, image, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "preprocess", picky)
    asked = [Question(i, noise(70 if i == 1 else 60, 60), "what?") for i in range(3)]
    answers = list(llava.stream(asked, RUN))
    assert [a.error and (a.error.type, a.error.message) for a in answers] == [
        None, ("CheckpointError", "the image processor made 3 crops"), None,
    ]  # fmt: skip


def test_one_image_is_not_decoded_by_two_threads_at_once(
    llava: adafv.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow reads a file when the image is first used, and closes it then."""
    looking, content_key = [], prefetching.content_key

    def slow(source: object) -> str:
        looking.append(1)
        time.sleep(0.02)
        assert len(looking) == 1
        key = content_key(source)  # type: ignore[arg-type]
        looking.pop()
        return key

    monkeypatch.setattr(prefetching, "content_key", slow)
    shared = noise(60, 60)
    answers = list(llava.stream([Question(i, shared, "what?") for i in range(4)], RUN, BatchSettings(workers=4)))
    assert all(a.error is None for a in answers)


def test_compare_is_refused(llava: adafv.Model) -> None:
    with pytest.raises(adafv.InputError, match="compare"):
        llava.stream([], RunSettings(compare=True))
