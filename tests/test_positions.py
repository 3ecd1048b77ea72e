"""RoPE positions: renumbered, or those of the unpruned prompt; checked on the ids, which logits would not betray."""

from __future__ import annotations

import torch

import adafv
from adafv import Question
from tests.conftest import noise
from tests.spying import listening
from tests.tiny import PATCHES

QUESTION = "what color is the sign?"


def test_compact_positions_have_no_gap_and_decoding_goes_on_from_there(llava: adafv.Model) -> None:
    with listening(llava) as heard:
        answer = llava.ask(noise(60, 60), QUESTION, keep=5, max_new_tokens=4)
    assert answer.tokens is not None
    length = answer.tokens.text + 5
    assert heard.positions[0].tolist() == [list(range(length))]
    assert [p.tolist() for p in heard.positions[1:]] == [
        [[length + step]] for step in range(answer.tokens.generated - 1)
    ]


def test_original_positions_are_those_of_the_unpruned_prompt(llava: adafv.Model) -> None:
    with listening(llava) as heard:
        answer = llava.ask(noise(60, 60), QUESTION, keep=5, positions="original", max_new_tokens=4)
    assert answer.tokens is not None
    unpruned = answer.tokens.text + PATCHES
    prompt = llava._prompter.prompt(QUESTION)
    before, after = len(prompt.before), len(prompt.after)
    positions = heard.positions[0][0].tolist()
    assert positions[:before] == list(range(before))
    assert positions[-after:] == list(range(unpruned - after, unpruned))
    visual = positions[before:-after]
    assert len(visual) == 5 and visual == sorted(set(visual))
    assert before <= visual[0] and visual[-1] < before + PATCHES
    assert heard.positions[1].tolist() == [[unpruned]]


def test_original_positions_with_everything_kept_are_the_compact_ones(llava: adafv.Model) -> None:
    logits = []
    for positions in ("compact", "original"):
        with listening(llava) as heard:
            llava.ask(noise(60, 60), QUESTION, keep="all", positions=positions, max_new_tokens=1)
        logits.append(heard.logits[0])
    assert torch.equal(*logits)


def test_gaps_do_not_cut_the_attention(llava: adafv.Model) -> None:
    """Positions with gaps and no mask would be read as several packed sequences."""
    together, alone = [], []
    questions = [Question(0, noise(60, 60), QUESTION), Question(1, noise(60, 60), "is there a red car? yes or no")]
    with listening(llava) as heard:
        list(llava.batch(questions, keep=5, positions="original", max_new_tokens=1))
    together.append(heard.logits[0])
    for question in questions:
        with listening(llava) as heard:
            list(llava.batch([question], keep=5, positions="original", max_new_tokens=1))
        alone.append(heard.logits[0])
    assert (torch.cat(together) - torch.cat(alone)).abs().max() < 5e-6
