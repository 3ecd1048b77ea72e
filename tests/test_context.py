"""The model's context: a prompt that fits is answered, one that does not costs nothing, no answer runs beyond it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import adafv
from adafv import InputError, Question
from tests.conftest import noise
from tests.spying import listening
from tests.tiny import PATCHES

QUESTION = "what color is the sign?"
KEEP = 5


@pytest.fixture
def endless(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> adafv.Model:
    """The tiny model, without an end token: every answer runs into a limit."""
    monkeypatch.setattr(llava._checkpoint.model.generation_config, "eos_token_id", None)
    return llava


@pytest.fixture
def length(llava: adafv.Model) -> int:
    """Positions of the pruned prompt."""
    return llava._prompter.prompt(QUESTION).text_tokens + KEEP


def limit(model: adafv.Model, monkeypatch: pytest.MonkeyPatch, context: int) -> None:
    monkeypatch.setattr(model.pipeline, "context", context)


@pytest.mark.parametrize(("spare", "generated"), [(0, 1), (1, 2), (3, 4), (100, 9)])
def test_an_answer_ends_where_the_context_does(
    endless: adafv.Model, length: int, spare: int, generated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last token is never fed back, so it takes no position: a prompt that fills the context has one token."""
    limit(endless, monkeypatch, length + spare)
    with listening(endless) as heard:
        answer = endless.ask(noise(60, 60), QUESTION, keep=KEEP, max_new_tokens=9)
    assert answer.tokens is not None
    assert (answer.tokens.generated, answer.finish_reason) == (generated, "length")
    assert max(int(positions.max()) for positions in heard.positions) <= length + spare - 1


def test_a_prompt_longer_than_the_context_takes_no_memory(
    llava: adafv.Model, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(llava, monkeypatch, length - 1)
    monkeypatch.setattr(llava.pipeline.stages, "embed", lambda _ids: pytest.fail("it was embedded"))
    with pytest.raises(InputError, match=rf"takes {length} positions \({KEEP} visual\), the model has {length - 1}"):
        llava.ask(noise(60, 60), QUESTION, keep=KEEP)


def test_original_positions_count_the_unpruned_image(
    endless: adafv.Model, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpruned = length - KEEP + PATCHES
    limit(endless, monkeypatch, unpruned + 1)
    answer = endless.ask(noise(60, 60), QUESTION, keep=KEEP, positions="original", max_new_tokens=9)
    assert answer.tokens is not None and answer.tokens.generated == 2
    limit(endless, monkeypatch, unpruned - 1)
    with pytest.raises(InputError, match=f"takes {unpruned} positions"):
        endless.ask(noise(60, 60), QUESTION, keep=KEEP, positions="original")


def test_rows_of_a_batch_end_each_at_its_own_limit(endless: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["what?", "is there a red car? yes or no", "how many boats are there on the wide lake today?"]
    questions = [Question(number, noise(60, 60), text) for number, text in enumerate(texts)]
    lengths = [endless._prompter.prompt(text).text_tokens + KEEP for text in texts]
    limit(endless, monkeypatch, max(lengths) + 2)
    together = list(endless.batch(questions, keep=KEEP, batch_size=3, max_new_tokens=40))
    counts = [answer.tokens.generated for answer in together if answer.tokens is not None]
    assert counts == [min(40, max(lengths) + 3 - length) for length in lengths] and len(set(counts)) == 3
    for answer, text in zip(together, texts, strict=True):
        assert answer.text == endless.ask(noise(60, 60), text, keep=KEEP, max_new_tokens=40).text


def test_a_config_without_a_context_sets_no_limit(endless: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endless.pipeline, "context", None)
    answer = endless.ask(noise(60, 60), QUESTION, keep=KEEP, max_new_tokens=9)
    assert answer.tokens is not None and answer.tokens.generated == 9


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many random numbers are asked for at a time."""
    counts: list[int] = []
    rand = torch.rand

    def spy(*sizes: int, **rest: object) -> torch.Tensor:
        counts.append(sizes[0])
        return rand(*sizes, **rest)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch, "rand", spy)
    return counts


def test_random_numbers_are_drawn_as_they_are_needed(endless: adafv.Model, drawn: list[int]) -> None:
    """A billion tokens may be asked for: nothing is made for those that never come."""
    answer = endless.ask(noise(60, 60), QUESTION, keep=KEEP, temperature=1.0, max_new_tokens=10**9)
    assert answer.tokens is not None and endless.context is not None
    assert 64 < answer.tokens.generated <= endless.context
    assert sum(drawn) < answer.tokens.generated + 64


def test_what_is_drawn_does_not_depend_on_how_much_may_be_generated(endless: adafv.Model) -> None:
    few, many = (
        endless.ask(noise(60, 60), QUESTION, keep=KEEP, temperature=1.0, max_new_tokens=most) for most in (70, 90)
    )
    assert few.text and many.text and many.tokens is not None and many.tokens.generated > 64
    assert many.text.startswith(few.text[:-3])  # the last token may be half a character
