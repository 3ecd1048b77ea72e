"""Chat templates for checkpoints that come without one, and system texts: what model cards document, and a user's own.

Each documented one renders a system turn, where there is one, and one user turn, the image before the question.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from adafv.errors import InputError, cut

_LARGEST = 1_000_000  # bytes of a file; published templates take a few thousand

# The turns that are rendered: the last message is the user's, with the image first and then the question.
_DOCUMENTED = {
    # LLaVA-1.5 and BakLLaVA
    "vicuna": (
        "{% if messages[0].role == 'system' %}{{ messages[0].content[0].text }} {% endif %}"
        "USER: <image>\n{{ messages[-1].content[1].text }} ASSISTANT:"
    ),
    # LLaVA-NeXT
    "vicuna-next": (
        "{% if messages[0].role == 'system' %}{{ messages[0].content[0].text }} {% else %}"
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. {% endif %}"
        "USER: <image>\n{{ messages[-1].content[1].text }} ASSISTANT:"
    ),
    # ViP-LLaVA
    "vip": (
        "{% if messages[0].role == 'system' %}{{ messages[0].content[0].text }}{% else %}"
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions.{% endif %}"
        "###Human: <image>\n{{ messages[-1].content[1].text }}###Assistant:"
    ),
    # LLaVA-NeXT on Mistral
    "mistral": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('Mistral knows no system text') }}{% endif %}"
        "[INST] <image>\n{{ messages[-1].content[1].text }} [/INST]"
    ),
    # LLaVA-NeXT-34B: ChatML, without line breaks between turns
    "yi": (
        "<|im_start|>system\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content[0].text }}{% else %}"
        "Answer the questions.{% endif %}<|im_end|>"
        "<|im_start|>user\n<image>\n{{ messages[-1].content[1].text }}<|im_end|>"
        "<|im_start|>assistant{{ '\n' }}"
    ),
    # LLaVA-NeXT-72B and -110B: ChatML
    "qwen": (
        "<|im_start|>system\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content[0].text }}{% else %}"
        "You are a helpful assistant.{% endif %}<|im_end|>\n"
        "<|im_start|>user\n<image>\n{{ messages[-1].content[1].text }}<|im_end|>\n"
        "<|im_start|>assistant{{ '\n' }}"
    ),
    # LLaVA-OneVision: ChatML with a space instead of a line break behind the role
    "onevision": (
        "{% if messages[0].role == 'system' %}<|im_start|>system \n"
        "{{ messages[0].content[0].text }}<|im_end|>{% endif %}"
        "<|im_start|>user <image>\n{{ messages[-1].content[1].text }}<|im_end|>"
        "<|im_start|>assistant{{ '\n' }}"
    ),
    # LLaVA-Llama-3
    "llama3": (
        "{% if messages[0].role == 'system' %}<|start_header_id|>system<|end_header_id|>\n\n"
        "{{ messages[0].content[0].text }}<|eot_id|>{% endif %}"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\n{{ messages[-1].content[1].text }}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}"
    ),
    # LLaVA-NeXT-8B, on Llama-3
    "llama3-next": (
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content[0].text }}{% else %}"
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language.{% endif %}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\n{{ messages[-1].content[1].text }}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}"
    ),
}
NAMES = tuple(_DOCUMENTED)

_CURIOUS = (
    "A chat between a curious {0} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)
SYSTEM_TEXTS = {
    "vicuna": _CURIOUS.format("user"),  # `vicuna_v1` of LLaVA's code: what LLaVA-1.5 was trained and evaluated with
    "vicuna-next": _CURIOUS.format("human"),  # model cards of LLaVA-NeXT on Vicuna, and of ViP-LLaVA
    "yi": "Answer the questions.",
    "qwen": "You are a helpful assistant.",
    "llama3-next": (
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language."
    ),
}
"""Documented system texts, by the name of the template that they belong to."""
_ONE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class ChatTemplate:
    """What a question is put in.

    Args:
        name: of a documented one, the path of a user's file, or `checkpoint` for the checkpoint's own.
        text: Jinja.
        reason: why the checkpoint's own is not used; empty where it is, or where the user chose.
    """

    name: str
    text: str
    reason: str = ""


def documented(name: str) -> ChatTemplate:
    """Look up a documented template by one of `NAMES`."""
    return ChatTemplate(name, _DOCUMENTED[name])


def chosen(value: str) -> ChatTemplate:
    """Read the template that a user chose: one of `NAMES`, or the path of a Jinja file.

    Raises:
        InputError: neither, or a file that cannot be read.
    """
    if value in _DOCUMENTED:
        return documented(value)
    fix = f"give a Jinja file, or one of {', '.join(NAMES)}"
    try:
        with Path(value).expanduser().open("rb") as file:
            content = file.read(_LARGEST + 1)
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"chat_template: {cut(value)!r} is no template: {reason}", fix) from error
    if len(content) > _LARGEST or not text.strip():
        size = "empty" if not text.strip() else f"larger than {_LARGEST:,} bytes"
        raise InputError(f"chat_template: {cut(value)!r} is {size}", fix)
    return ChatTemplate(value, text)


def system_text(value: str) -> str:
    """Look up a documented system text by its name; anything but a single word in lower case is the text itself.

    Raises:
        InputError: a name that is not known.
    """
    if value in SYSTEM_TEXTS:
        return SYSTEM_TEXTS[value]
    if _ONE_NAME.fullmatch(value):
        known = ", ".join(SYSTEM_TEXTS)
        raise InputError(
            f"system: {cut(value)!r} is no known name", f"choose from {known}, or give a text of several words"
        )
    return value


def system_name(text: str | None) -> str | None:
    """Tell a documented system text by its name, any other by itself."""
    return next((name for name, known in SYSTEM_TEXTS.items() if known == text), text)


def identity(value: str | None) -> str | None:
    """Tell a chosen template from others: its name, or its file's content, which may change under the same name.

    Raises:
        InputError: as `chosen`.
    """
    if value is None or value in _DOCUMENTED:
        return value
    return f"{value} (blake2b {hashlib.blake2b(chosen(value).text.encode(), digest_size=8).hexdigest()})"
