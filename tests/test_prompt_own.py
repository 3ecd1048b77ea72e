"""Which of a prompt's tokens are the question's own: for pruners that look at its words and at nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adafv.errors import CheckpointError
from adafv.prompt import INSTRUCTIONS, Prompt, Prompter
from tests import families, published, tiny
from tests.families import vicuna_tokenizer
from tests.published import INST, MARKED
from tests.test_prompts import documented, prompter

WORDS = (
    "<unk> <s> </s> <image> USER : ASSISTANT what color is the sign ? answer question using a single word or phrase . "
    "please yes no"
).split()
FAMILIES = ["vicuna", "mistral", "yi", "llama3", "bpe", "words"]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, in any case."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.add_special_tokens(WORDS[:4])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def own_text(words: Any, prompt: Prompt) -> str:
    """The text of the tokens that are the question's own."""
    first, end = prompt.question_span
    assert 0 <= first < end <= len(prompt.after)
    decoded: str = words.decode(prompt.after[first:end]).strip()
    return decoded


def asking_of_every_kind() -> dict[str, tuple[Any, Prompter]]:
    """SentencePiece, bytes and byte-level BPE, and words, each with the template of its family."""
    fallbacks = {name: documented(name) for name in published.CONFIGS}
    words = {
        "vicuna": (vicuna_tokenizer("<image>", "<pad>"), MARKED, "vicuna", 32_000),
        "mistral": (vicuna_tokenizer("<image>", "<pad>"), INST, "mistral", 32_000),
        "yi": (families.yi_tokenizer(), None, fallbacks["llava-v1.6-34b"], 64_000),
        "llama3": (families.llama3_tokenizer(), None, fallbacks["llava-llama-3-8b"], 128_257),
        "bpe": (tiny.tokenizer(), tiny.TEMPLATE, "vicuna", 3),
        "words": (word_tokenizer(), tiny.TEMPLATE, "vicuna", WORDS.index("<image>")),
    }
    return {
        name: (tokenizer, prompter(tokenizer, template, fallback, image_id))
        for name, (tokenizer, template, fallback, image_id) in words.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_s_own_tokens_are_neither_template_nor_instruction(family: str) -> None:
    words, asking = asking_of_every_kind()[family]
    question = "what color is the sign?"
    wanted = "what color is the sign ?" if family == "words" else question
    alone = asking.prompt(question)
    assert own_text(words, alone) == wanted
    assert alone.question_span[1] < len(alone.after)  # the template's tail is behind it
    for instruction in (*INSTRUCTIONS, INSTRUCTIONS[0].upper(), INSTRUCTIONS[2].lower()):
        for between in (" ", "\n", ""):
            prompt = asking.prompt(f"{question}{between}{instruction}")
            assert own_text(words, prompt) == wanted, (between, instruction)
            assert len(prompt.after) > len(alone.after)
    for several in ((INSTRUCTIONS[2], INSTRUCTIONS[0]), (INSTRUCTIONS[3], INSTRUCTIONS[0])):  # of MME, of VizWiz
        assert own_text(words, asking.prompt("\n".join([question, *several]))) == wanted
    in_front = asking.prompt(f"{INSTRUCTIONS[2]} {question}")  # no suffix, and so the question's own
    assert in_front.question_span[1] - in_front.question_span[0] > alone.question_span[1] - alone.question_span[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_a_question_that_is_nothing_but_an_instruction_is_its_own(family: str, instruction: str) -> None:
    words, asking = asking_of_every_kind()[family]
    plain = own_text(words, asking.prompt(instruction)).lower().replace(" ", "")
    if "<unk>" not in plain:
        assert plain == instruction.lower().replace(" ", "")


def test_without_offsets_all_text_is_the_question_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers in plain Python do not say which characters a token came from."""
    words, asking = asking_of_every_kind()["bpe"]
    monkeypatch.setattr(type(words), "is_fast", property(lambda _: False))
    prompt = asking.prompt("what color is the sign?")
    assert prompt.question_span == (0, len(prompt.after))


def test_a_question_that_the_system_text_repeats_is_found_behind_the_image() -> None:
    words, asking = asking_of_every_kind()["vicuna"]
    prompt = asking.prompt("what?", "Answer what?")
    assert own_text(words, prompt) == "what?"


@pytest.mark.parametrize("question", ["image", "a", ">"])
def test_a_question_that_the_placeholder_s_name_repeats_is_found_behind_it(question: str) -> None:
    words, asking = asking_of_every_kind()["llama3"]
    assert own_text(words, asking.prompt(question)) == question


def test_a_template_that_asks_before_the_image_is_refused() -> None:
    turned = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %} <image> ASSISTANT:"
    with pytest.raises(CheckpointError, match="puts the question in front of the image") as raised:
        prompter(tiny.tokenizer(), turned, "vicuna", 3).prompt("what?")
    assert "--chat-template" in raised.value.fix
