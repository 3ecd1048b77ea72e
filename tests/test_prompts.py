"""Prompts are the published ones, to the letter, and text spans are found from the token ids."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig, LlavaProcessor

from adafv import chat_templates
from adafv.errors import CheckpointError, InputError
from adafv.families import FAMILIES, family_of
from adafv.prompt import Prompter
from tests import families, published, tiny
from tests.families import vicuna_tokenizer
from tests.published import INST, LLAMA3_TEXT, MARKED, TURNS, VICUNA_SYSTEM

QUESTION = "What is shown in this image?"
SYSTEM = "Answer in one word."
HUB = "USER: <image>\nWhat is shown in this image? ASSISTANT:"
LLAMA3 = (
    "<|start_header_id|>user<|end_header_id|>\n\n<image>\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
TWICE = TURNS.replace(  # as the first revision of LLaVA-1.5-13B has it
    "{%- for turn in messages -%}",
    '{%- for turn in messages -%}{%- if turn.role == "system" -%}{{ turn.content[0].text }}{%- endif -%}',
)


@pytest.fixture(scope="module")
def vicuna() -> Any:
    return vicuna_tokenizer("<image>", "<pad>")


@pytest.fixture(scope="module")
def yi() -> Any:
    return families.yi_tokenizer()


@pytest.fixture(scope="module")
def llama3() -> Any:
    return families.llama3_tokenizer()


def documented(name: str) -> str:
    """The template that a published checkpoint falls back to."""
    config = AutoConfig.for_model(**published.CONFIGS[name])
    return family_of(config).template(config)


def prompter(words: Any, template: str | None = None, fallback: str = "vicuna", image_id: int = 32_000) -> Prompter:
    processor = LlavaProcessor(tiny.image_processor(), words, chat_template=template, patch_size=14)
    return Prompter(processor, image_id, chat_templates.documented(fallback))


@pytest.mark.parametrize("template", [MARKED, TURNS, None], ids=["newest", "fixed", "none"])
def test_vicuna_renders_as_published(vicuna: Any, template: str | None) -> None:
    asking = prompter(vicuna, template)
    assert asking.prompt(QUESTION).text == HUB
    assert asking.prompt(QUESTION, SYSTEM).text == f"{SYSTEM} {HUB}"


@pytest.mark.parametrize(
    ("name", "text", "with_system"),
    [
        ("llava-1.5-7b", HUB, f"{SYSTEM} {HUB}"),
        ("bakLlava-v1", HUB, f"{SYSTEM} {HUB}"),
        ("llava-v1.6-vicuna-7b", f"{VICUNA_SYSTEM} {HUB}", f"{SYSTEM} {HUB}"),
        ("llava-v1.6-mistral-7b", f"[INST] <image>\n{QUESTION} [/INST]", None),
        (
            "vip-llava-7b",
            f"{VICUNA_SYSTEM}###Human: <image>\n{QUESTION}###Assistant:",
            f"{SYSTEM}###Human: <image>\n{QUESTION}###Assistant:",
        ),
    ],
)
def test_families_without_a_template_get_the_documented_prompt(
    vicuna: Any, name: str, text: str, with_system: str | None
) -> None:
    asking = prompter(vicuna, None, documented(name))
    assert asking.prompt(QUESTION).text == text
    if with_system is None:
        with pytest.raises(InputError, match="knows no system text"):
            asking.prompt(QUESTION, SYSTEM)
    else:
        assert asking.prompt(QUESTION, SYSTEM).text == with_system


def test_yi_s_turns_have_no_line_break_between_them(yi: Any) -> None:
    fallback = documented("llava-v1.6-34b")
    tail = f"<|im_end|><|im_start|>user\n<image>\n{QUESTION}<|im_end|><|im_start|>assistant\n"
    asking = prompter(yi, None, fallback, 64_000)
    assert asking.prompt(QUESTION).text == f"<|im_start|>system\nAnswer the questions.{tail}"
    assert asking.prompt(QUESTION, SYSTEM).text == f"<|im_start|>system\n{SYSTEM}{tail}"
    assert asking.prompt(QUESTION).before[0] == 6 and asking.prompt(QUESTION).after.count(7) == 1


def test_llama_3_keeps_one_leading_token(llama3: Any) -> None:
    fallback = documented("llava-llama-3-8b")
    asking = prompter(llama3, None, fallback, 128_257)
    prompt = asking.prompt(QUESTION)
    assert prompt.text == LLAMA3.format(QUESTION)
    assert prompt.before[:2] == [128_000, 128_006] and 128_000 not in prompt.before[1:] + prompt.after
    leading = (
        "{{ bos_token }}" + chat_templates.documented(fallback).text
    )  # a template that writes the leading token itself
    again = prompter(llama3, leading, fallback, 128_257).prompt(QUESTION)
    assert (again.before, again.after) == (prompt.before, prompt.after)


def test_larger_next_families_have_their_own_system_text() -> None:
    def of(kind: str, vocabulary: int) -> str:
        text = SimpleNamespace(model_type=kind, vocab_size=vocabulary)
        return FAMILIES["llava_next"].template(SimpleNamespace(text_config=text))

    assert of("llama", 128_320) == "llama3-next"
    assert of("qwen2", 152_064) == "qwen"
    assert "helpful language and vision assistant" in chat_templates.documented("llama3-next").text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (LLAMA3_TEXT, "knows no images"),
        ("{% for turn in messages %}{{ '[INST] ' + turn.content + ' [/INST]' }}{% endfor %}", "knows no images"),
        (TWICE, "repeats the system text"),
    ],
)
def test_templates_that_the_family_never_saw_are_set_aside(vicuna: Any, template: str, reason: str) -> None:
    asking = prompter(vicuna, template)
    assert asking.template.name == "vicuna"
    assert asking.template.reason == f"the checkpoint's chat template {reason}"
    assert asking.prompt(QUESTION).text == HUB
    assert asking.prompt(QUESTION, SYSTEM).text == f"{SYSTEM} {HUB}"


def test_the_first_34b_template_is_another_family_s(yi: Any, vicuna: Any) -> None:
    asking = prompter(yi, INST, "yi", 64_000)
    assert asking.prompt(QUESTION).text.startswith("<|im_start|>system\n")
    assert asking.template.reason.endswith("has another family's turns")
    assert prompter(vicuna, INST, "mistral").prompt(QUESTION).text == f"[INST] <image>\n{QUESTION} [/INST]"


def test_a_tokenizer_s_template_counts_when_it_knows_images(vicuna: Any) -> None:
    words = vicuna_tokenizer("<image>", "<pad>")
    words.chat_template = TURNS.replace("ASSISTANT", "MACHINE")
    assert prompter(words).prompt(QUESTION).text == HUB.replace("ASSISTANT", "MACHINE")


def test_spans_meet_at_the_placeholder(vicuna: Any) -> None:
    prompt = prompter(vicuna, MARKED).prompt(QUESTION)
    assert vicuna.decode(prompt.before) == "<s> USER: "
    assert vicuna.decode(prompt.after) == f"\n{QUESTION} ASSISTANT:"
    assert prompt.text_tokens == len(prompt.before) + len(prompt.after) == len(vicuna(HUB)["input_ids"]) - 1


@pytest.mark.parametrize("question", [f"<image>\n{QUESTION}", f"{QUESTION}\n<image>", f"  {QUESTION}  "])
def test_placeholders_at_the_ends_are_dropped(vicuna: Any, question: str) -> None:
    assert prompter(vicuna).prompt(question).text == HUB


@pytest.mark.parametrize(
    ("question", "system", "message"),
    [
        ("What does <image> mean?", None, "the question 'What does <image> mean?' contains the image placeholder"),
        (QUESTION, "See <image>.", "the system text 'See <image>.' contains the image placeholder"),
        (" <image> ", None, "is empty"),
    ],
)
def test_what_would_be_a_second_placeholder_is_refused(
    vicuna: Any, question: str, system: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        prompter(vicuna).prompt(question, system)


@pytest.mark.parametrize("question", [f"{'x ' * 5000}<image> y", " " * 3000, "<image>" * 800])
def test_a_long_question_is_cut_where_it_is_refused(vicuna: Any, question: str) -> None:
    with pytest.raises(InputError) as caught:
        prompter(vicuna).prompt(question)
    assert len(caught.value.what) < 300


def test_system_text_that_a_template_refuses_or_drops_is_an_error(vicuna: Any) -> None:
    with pytest.raises(InputError, match="user turns only") as refused:
        prompter(vicuna, INST).prompt(QUESTION, SYSTEM)
    assert "--system" in refused.value.fix
    dropping = TURNS.replace("{%- for turn in messages -%}", '{%- for turn in messages if turn.role == "user" -%}')
    with pytest.raises(InputError, match="takes no system text"):
        prompter(vicuna, dropping).prompt(QUESTION, SYSTEM)


def test_a_question_that_a_template_changes_is_that_question_s_fault(vicuna: Any) -> None:
    asking = prompter(vicuna, TURNS.replace("part.text ~", "(part.text | e) ~"))
    assert asking.prompt(QUESTION).text == HUB
    with pytest.raises(InputError, match=r"loses or changes the question '3 < 5\?'") as refused:
        asking.prompt("3 < 5?")
    assert "--chat-template" in refused.value.fix


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{% for turn in messages %}", "nexpected end of template"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{% macro more() %}{{ more() }}{% endmacro %}{{ more() }}", "RecursionError"),
        ("{% for i in range(9 ** 9) %}x{% endfor %}", "it computes powers"),
        ("{{ 10 ** 10 ** 9 }}", "it computes powers"),
        ("{% for i in range(1000000) %}x{% endfor %}", "it counts to 1000000"),
        ("{% set many = 99999 %}{% for i in range(many + many) %}x{% endfor %}", "OverflowError: Range too big"),
        ("{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}", "after 200,000 steps"),
        (TURNS.replace("<image>", "<image> <image>"), "made 2 image placeholders for one image"),
    ],
)
def test_templates_that_cannot_be_used_are_the_checkpoint_s_fault(vicuna: Any, template: str, what: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(what)) as caught:
        prompter(vicuna, template)
    assert caught.value.fix


def test_tokenizers_that_do_not_fit_are_named(vicuna: Any) -> None:
    with pytest.raises(CheckpointError, match="no token for the image placeholder's id 99999"):
        prompter(vicuna, image_id=99_999)
    with pytest.raises(CheckpointError, match="made 0 image placeholders"):
        prompter(vicuna, image_id=32_001)


def test_the_token_that_ends_a_turn(vicuna: Any, yi: Any, llama3: Any) -> None:
    assert prompter(vicuna).turn_end is None
    assert prompter(vicuna, INST, "mistral").turn_end is None
    assert prompter(yi, None, "yi", 64_000).turn_end == 7
    assert prompter(llama3, None, "llama3", 128_257).turn_end == 128_009
