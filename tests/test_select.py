"""Questions that choose together: the same tokens for all about an image, or those of saliency for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adafv
from adafv import Answer, InputError, Question, RunSettings, knowing, pruners
from adafv.costs.plan import PromptPlan, plan_answer, plan_image
from adafv.knowing import Known, together
from adafv.pipeline import Outcome
from adafv.prompt import Prompt
from adafv.request import Request
from adafv.signals.gathering import gather_evidence
from adafv.timing import Stopwatch
from tests.conftest import noise
from tests.spying import listening

TEXTS = ("what color is the sign?", "what?", "is there a red car? Please answer yes or no.", "and the house behind?")
WORDY = ("adafv", "similarity", "cdpruner", "mmtok", "random")  # whose choice is not the image's alone


@pytest.fixture(scope="module", params=["llava", "tiled"])
def model(request: pytest.FixtureRequest) -> adafv.Model:
    found: adafv.Model = request.getfixturevalue(request.param)
    return found


def questions(known: Sequence[str] = TEXTS, images: int = 2) -> list[Question]:
    """Every text about each of some images of different sizes, which come in turn."""
    pictures = [noise(60 + 70 * (number % 2), 60, seed=number) for number in range(images)]
    asked = [(picture, text) for text in TEXTS for picture in pictures]
    return [Question(number, picture, text, known=tuple(known)) for number, (picture, text) in enumerate(asked)]


def outcomes(model: adafv.Model, asked: Sequence[Question], run: RunSettings) -> list[tuple[Answer, Outcome]]:
    encodings = {id(question.image): model.encode(question.image, run)[0] for question in asked}
    return model.outcomes(
        [Request(question, model.render(question, run), encodings[id(question.image)]) for question in asked], run
    )


@torch.inference_mode()
@pytest.mark.parametrize("pruner", WORDY)
def test_one_choice_is_the_pruner_s_own_for_all_words_in_a_row(model: adafv.Model, pruner: str) -> None:
    asked, run = questions(images=1), RunSettings(keep=7, pruner=pruner, select="image", max_new_tokens=2)
    found = [outcome.kept for _, outcome in outcomes(model, asked, run)]
    assert all(torch.equal(one.places, found[0].places) and one.tokens is found[0].tokens for one in found)
    encoding, prompts = model.encode(asked[0].image, run)[0], [model.render(question, run) for question in asked]
    words = torch.cat([model.pipeline.stages.embed(prompt.after) for prompt in prompts])
    seed = Request(asked[0], prompts[0], encoding, known=tuple(prompts)).choice_seed(run.seed)
    evidence = gather_evidence([encoding], [words], [(0, len(words))], [seed], {"text", "tokens", "features"})
    own = [number for prompt in prompts for number in _own(prompt)]
    mask = torch.zeros_like(evidence.question_mask).index_fill_(1, torch.tensor(own).nonzero()[:, 0], True)
    selection = pruners.get(pruner)(replace(evidence, question_mask=mask), 7)
    assert torch.equal(found[0].places, encoding.candidates[selection.indices[0]])
    assert not mask.all()  # templates are no question's own


def _own(prompt: Prompt) -> list[bool]:
    first, end = prompt.question_span
    return [first <= number < end for number in range(len(prompt.after))]


@pytest.mark.parametrize("keep", [1, 2, 5, 12])
def test_a_divided_choice_is_saliency_s_for_all_and_the_best_of_the_rest_for_each(
    model: adafv.Model, keep: int
) -> None:
    asked, run = questions(images=1), RunSettings(keep=keep, select="split", max_new_tokens=2)
    found = [outcome.kept for _, outcome in outcomes(model, asked, run)]
    whole = outcomes(model, asked[:1], replace(run, select="image"))[0][1].kept
    assert whole.by_saliency is not None
    shared = whole.places[whole.by_saliency].tolist()
    encoding = model.encode(asked[0].image, run)[0]
    for question, kept in zip(asked, found, strict=True):
        scored = model.pipeline.scores(Request(question, model.render(question, run), encoding))
        rest = [one for one in range(encoding.visual) if int(encoding.candidates[one]) not in shared]
        best = sorted(rest, key=lambda one: (-float(scored.relevance[0, one]), one))[: keep - len(shared)]
        assert kept.places.tolist() == shared + [int(encoding.candidates[one]) for one in sorted(best)]
        assert torch.equal(kept.tokens, encoding.packed[kept.places])
        assert kept.head is found[0].head and len(kept.common) == len(shared)
        counts = kept.counts
        assert (counts.from_saliency, counts.from_similarity, counts.from_both) == (len(shared), keep - len(shared), 0)


@torch.inference_mode()
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), keep=st.integers(1, 30))
def test_divided_for_one_question_are_the_published_tokens(llava: adafv.Model, seed: int, keep: int) -> None:
    """Asked beside itself, so that it is divided at all."""
    question, run = Question(0, noise(60, 60, seed), TEXTS[seed % 4]), RunSettings(keep=keep, max_new_tokens=1)
    prompt, encoding = llava.render(question, run), llava.encode(question.image, run)[0]
    request = Request(question, prompt, encoding)
    twice, (words,) = replace(request, known=(prompt, replace(prompt, text=""))), llava.pipeline.embed([request])
    chosen = [
        llava.pipeline.prune([one], [words], replace(run, select=select), Stopwatch())[0]
        for one, select in ((request, "question"), (twice, "split"))
    ]
    assert chosen[1].places.sort().values.tolist() == chosen[0].places.tolist()


@pytest.mark.parametrize("select", ["image", "split"])
@pytest.mark.parametrize("known", [(), TEXTS[:1]], ids=len)
def test_with_one_question_known_all_are_the_same_to_the_bit(
    model: adafv.Model, select: Any, known: tuple[str, ...]
) -> None:
    asked = [replace(question, known=known) for question in questions(images=2) if question.text == TEXTS[0]]
    heard = []
    for one in ("question", select):
        with listening(model) as sounds:
            answers = list(model.stream(asked, RunSettings(keep=5, select=one, temperature=0.9, max_new_tokens=5)))
        heard.append((torch.cat(sounds.logits), [(answer.text, answer.tokens, answer.flops) for answer in answers]))
    assert torch.equal(heard[0][0], heard[1][0]) and heard[0][1] == heard[1][1]
    assert [answer.select for answer in answers] == [select] * 2


@pytest.mark.parametrize("chosen", [{"select": "image", "pruner": "random"}, {"select": "split"}, {"select": "image"},
                                      {"select": "image", "keep": "auto", "pruner": "mmtok"}], ids=str)  # fmt: skip
def test_an_answer_is_no_business_of_its_batch(llava: adafv.Model, chosen: dict[str, Any]) -> None:
    run = RunSettings(**{"keep": 7, "temperature": 0.9, "max_new_tokens": 4} | chosen)
    asked = questions()

    def said(asked: Sequence[Question], size: int) -> dict[object, tuple[object, ...]]:
        answers = llava.stream(asked, run, adafv.BatchSettings(batch_size=size))
        return {one.question_id: (one.text, one.tokens, one.error) for one in answers}

    whole = said(asked, 8)
    assert said(asked[::-1], 8) == said(asked, 3) == said(asked, 1) == whole
    assert {key: whole[key] for key in (3, 6)} == said([asked[3], asked[6]], 8)  # the others are answered already


@pytest.mark.parametrize("select", ["image", "split"])
def test_questions_with_budgets_of_their_own_choose_with_those_that_have_the_same(
    llava: adafv.Model, select: Any
) -> None:
    asked, run = questions(images=1), RunSettings(keep="auto", select=select, max_new_tokens=2)
    own = ("auto:20%", 3, "auto:50%", None)
    mixed = [replace(question, keep=keep) for question, keep in zip(asked, own, strict=True)]
    found = [outcome.kept for _, outcome in outcomes(llava, mixed, run)]
    for number, (kept, keep) in enumerate(zip(found, own, strict=True)):
        same = [replace(question, keep=keep) for question in asked]
        assert kept.places.tolist() == outcomes(llava, same, run)[number][1].kept.places.tolist()
    assert len(found[0].places) < len(found[2].places) < len(found[3].places)


def test_a_choice_is_charged_once_with_all_its_words(llava: adafv.Model) -> None:
    asked = questions(images=1)
    run = RunSettings(keep=5, max_new_tokens=3)
    alone = [llava.stream([question], run).__next__() for question in asked]
    for select in ("image", "split"):
        answers = list(llava.stream(asked, replace(run, select=select), adafv.BatchSettings(batch_size=4)))
        charged = [one.flops.score for one in answers if one.flops]
        assert charged == [sum(one.flops.score for one in alone if one.flops), 0, 0, 0]


@pytest.mark.parametrize("pruner", ["adafv", "similarity"])
def test_plans_add_up_to_what_is_charged(llava: adafv.Model, pruner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adafv.prefixes, "WORTH", -(10**9))
    run, config = RunSettings(keep=5, pruner=pruner, select="image", max_new_tokens=3), llava._checkpoint.model.config
    asked = questions(images=1)
    answers = list(llava.stream(asked, run, adafv.BatchSettings(batch_size=4)))
    planned = spent = unpruned = 0
    for number, (question, answer) in enumerate(zip(asked, answers, strict=True)):
        prompt = llava.render(question, run)
        assert answer.tokens is not None and answer.flops is not None
        lengths = PromptPlan(len(prompt.before), len(prompt.after), answer.tokens.generated)
        plan = plan_answer(config, plan_image(config, *question.image.size[::-1]), run, lengths, later=number > 0)
        planned, spent = planned + plan.flops.total, spent + answer.flops.total
        unpruned += plan.flops.unpruned_total - answer.flops.unpruned_total
    assert (planned, unpruned) == (spent, 0)


def test_what_cannot_be_asked_is_not_known(llava: adafv.Model) -> None:
    """And a question that its own list forgot is."""
    asked, broken = questions(images=1), (*TEXTS, "", "<image> twice")
    run = RunSettings(keep=5, select="image", max_new_tokens=2)
    wanted = [one.kept.places.tolist() for _, one in outcomes(llava, asked, run)]
    given: Any = list(TEXTS)  # as a user may hold them
    for known in (broken, TEXTS * 2, given):
        found = outcomes(llava, [replace(question, known=known) for question in asked], run)
        assert [one.kept.places.tolist() for _, one in found] == wanted
    last = outcomes(llava, [replace(asked[-1], known=TEXTS[:3])], run)
    assert [one.kept.places.tolist() for _, one in last] == wanted[-1:]


@pytest.mark.parametrize(
    "refused,said",
    [
        ({"select": "all"}, "select: 'all' is not one of question, image, split"),
        ({"select": 3}, "select: 3 is not one of"),
        ({"select": "split", "pruner": "mmtok"}, "mmtok keeps no two lists"),
        ({"select": "split", "pruner": "saliency"}, "saliency keeps no two lists"),
        ({"select": "split", "crop_budget": "each"}, "here each has a budget of its own"),
    ],
)
def test_what_is_refused(refused: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RunSettings(**refused)


def test_two_lists_are_those_that_a_choice_names(llava: adafv.Model) -> None:
    asked = questions(images=1)[:1]
    for name in pruners.BUILT_IN:
        kept = outcomes(llava, asked, RunSettings(keep=5, pruner=name, max_new_tokens=1))[0][1].kept
        assert (kept.by_saliency is not None) is (name in pruners.TWO_LISTS)


@pytest.mark.parametrize("most", [64, 3])
def test_a_library_s_questions_know_of_each_other(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Each row has its image as an object of its own, as those of `datasets` have."""
    monkeypatch.setattr(knowing, "MOST", most)
    picture = noise(60, 60)
    rows = [{"image": picture.copy(), "text": text} for text in TEXTS]
    found = list(llava.batch(rows, keep=5, select="image", max_new_tokens=2))
    known = [TEXTS[:most]] * most + [TEXTS[most:]]
    asked = [
        Question(number, picture, text, known=own) for number, (text, own) in enumerate(zip(TEXTS, known, strict=False))
    ]
    wanted = list(llava.stream(asked, RunSettings(keep=5, select="image", max_new_tokens=2)))
    several = list(llava.answer(picture, TEXTS, keep=5, select="image", max_new_tokens=2))
    assert [one.tokens for one in found] == [one.tokens for one in wanted] == [one.tokens for one in several]
    assert [one.text for one in found] == [one.text for one in wanted] == [one.text for one in several]


def test_a_text_is_one_question() -> None:
    text: Any = "what?"
    assert Question(1, "a.png", "what?", known=text).known == ("what?",)


def test_who_is_known_with_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowing, "MOST", 2)
    monkeypatch.setattr(knowing, "_MOST_BYTES", 4 * knowing._AROUND + 5)
    known = Known()
    for text in ("a", "b", "a", "c", "b"):
        known.add(1, text)
    assert [known.of(1, text) for text in "abcd"] == [("a", "b"), ("a", "b"), ("c",), ("d",)]
    assert (known.of(2, "a"), known.full) == (("a",), False)
    known.add(2, "eee")
    assert known.full
    by_path = [Question(1, "x/a.png", "p"), Question(2, "x/./a.png", "q"), Question(3, b"a", "p", known=("p", "z"))]
    assert [one.known for one in together(by_path) if isinstance(one, Question)] == [("p", "q"), ("p", "q"), ("p", "z")]
