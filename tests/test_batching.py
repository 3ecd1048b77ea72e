"""A batch equals its questions one by one; one image is encoded once; what fails does not take the others along."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

import adafv
from adafv import Question
from tests.conftest import noise
from tests.spying import listening

WORDS = [
    "what",
    "color",
    "is",
    "the",
    "sign",
    "in",
    "the",
    "picture",
    "that",
    "is",
    "behind",
    "the",
    "big",
    "blue",
    "house",
    "and",
    "the",
    "red",
    "boat",
]


def questions(count: int) -> list[Question]:
    return [Question(i, noise(60 + 9 * i, 60, seed=i), " ".join(WORDS[: 2 + 3 * i])) for i in range(count)]


def test_left_padded_batch_equals_singles(llava: adafv.Model) -> None:
    asked = questions(5)
    with listening(llava) as heard:
        together = list(llava.batch(asked, batch_size=5, keep="25%", max_new_tokens=6))
    first = heard.logits[0]
    for row, question in enumerate(asked):
        with listening(llava) as heard:
            (alone,) = llava.batch([question], keep="25%", max_new_tokens=6)
        assert (heard.logits[0][0] - first[row]).abs().max() < 5e-6
        assert (alone.text, alone.tokens, alone.flops) == (
            together[row].text,
            together[row].tokens,
            together[row].flops,
        )
    assert (first[1:] - first[:-1]).abs().amax(1).min() > 1e-3  # the rows do differ


def test_order_ids_and_metadata_are_the_input_s(llava: adafv.Model) -> None:
    asked = [Question(f"q{i}", noise(60, 60), WORDS[i], {"category": i}) for i in range(7)]
    answers = list(llava.batch(iter(asked), batch_size=3, max_new_tokens=1))
    assert [(a.question_id, a.prompt, a.metadata) for a in answers] == [
        (q.question_id, q.text, q.metadata) for q in asked
    ]


def test_questions_on_one_image_encode_it_once(llava: adafv.Model) -> None:
    image = noise(60, 60)
    with listening(llava) as heard:
        run = adafv.RunSettings(max_new_tokens=1)
        answers = list(llava.answer(image, ["one?", "two?", "three?"], run))
    assert heard.vision_calls == 1
    assert [a.latency_s is not None and a.latency_s.vision > 0 for a in answers] == [True, False, False]
    assert [a.flops is not None and a.flops.vision > 0 for a in answers] == [True, False, False]
    with listening(llava) as heard:  # equal content, not the same object; and across batches
        list(llava.batch([Question(i, image.copy(), "one?") for i in range(5)], batch_size=2, max_new_tokens=1))
    assert heard.vision_calls == 1


def test_a_shared_image_changes_nothing(llava: adafv.Model) -> None:
    image = noise(60, 60)
    shared = list(llava.answer(image, ["what color?", "is there a sign?"], adafv.RunSettings(max_new_tokens=5, keep=4)))
    for answer, question in zip(shared, ["what color?", "is there a sign?"], strict=True):
        alone = llava.ask(image, question, max_new_tokens=5, keep=4)
        assert (alone.text, alone.tokens) == (answer.text, answer.tokens)


def test_what_fails_becomes_an_error_in_its_place(llava: adafv.Model, tmp_path: Path) -> None:
    asked = [
        Question(0, noise(60, 60), "one?"),
        Question(1, tmp_path / "gone.png", "two?"),
        Question(2, noise(60, 60), "   "),
        Question(3, noise(60, 60), "four?"),
    ]
    answers = list(llava.batch(asked, batch_size=4, max_new_tokens=1))
    assert [a.text is None for a in answers] == [False, True, True, False]
    assert [a.error and a.error.type for a in answers] == [None, "ImageError", "InputError", None]
    assert answers[1].error is not None and "gone.png" in answers[1].error.message
    assert all(a.error is None or a.error.fix for a in answers)


def test_random_pruning_depends_on_seed_and_id_not_on_the_batch(llava: adafv.Model) -> None:
    asked = questions(4)
    batched = [a.text for a in llava.batch(asked, batch_size=4, pruner="random", keep=4, max_new_tokens=4, seed=3)]
    single = [
        a.text for a in llava.batch(reversed(asked), batch_size=1, pruner="random", keep=4, max_new_tokens=4, seed=3)
    ]
    assert batched == single[::-1]


def test_sampling_depends_on_seed_and_id_not_on_the_batch(llava: adafv.Model) -> None:
    asked = questions(4)
    settings = {"temperature": 1.5, "keep": 4, "max_new_tokens": 8, "seed": 3}
    batched = [a.text for a in llava.batch(asked, batch_size=4, **settings)]
    single = [a.text for a in llava.batch(reversed(asked), batch_size=1, **settings)]
    assert batched == single[::-1]


def drawn(model: adafv.Model, seed: int, ids: Iterable[int]) -> list[tuple[str | None, tuple[int, ...]]]:
    """Texts that were sampled, and positions of tokens that were kept, for one question under several ids."""
    asked = [Question(i, noise(60, 60), "what color?") for i in ids]
    settings = {"pruner": "random", "keep": 4, "positions": "original", "temperature": 1.5, "max_new_tokens": 8}
    with listening(model) as heard:
        answers = list(model.batch(asked, batch_size=8, seed=seed, **settings))
    return [(answer.text, tuple(row.tolist())) for answer, row in zip(answers, heard.positions[0], strict=True)]


def test_each_question_draws_for_itself(llava: adafv.Model) -> None:
    found, others = drawn(llava, 3, range(6)), drawn(llava, 4, range(6))
    for column in (0, 1):
        assert len({row[column] for row in found}) > 3  # one question, but six ids
        assert all(row[column] != other[column] for row, other in zip(found, others, strict=True))
    assert drawn(llava, 3, reversed(range(6))) == found[::-1]


def test_sampling_is_seeded_and_leaves_the_caller_s_random_state(llava: adafv.Model) -> None:
    image = noise(60, 60)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    texts = [llava.ask(image, "what?", temperature=1.5, seed=seed, max_new_tokens=8).text for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), wanted)
    assert texts[0] == texts[1] != texts[2]
