"""Chat templates for checkpoints that come without one: the prompts that their model cards document.

Each renders a system turn, where the family knows one, and one user turn; the image comes before the question.
"""

from __future__ import annotations

from typing import Any

_VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_LLAMA3_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_REFUSED = "{{ raise_exception('this family knows no system text') }}"


def _template(user: tuple[str, str], answer: str, system: tuple[str, str] | None = None, default: str = "") -> str:
    """Jinja for one question.

    Args:
        user: what stands before and behind the image and the question.
        answer: what the answer follows.
        system: what stands before and behind a system text; `None` refuses one.
        default: the system text of a conversation without one; empty for none.
    """
    own = f"{{{{ {system[0]!r} + message['content'][0]['text'] + {system[1]!r} }}}}" if system else _REFUSED
    instead = f"{{{{ {system[0] + default + system[1]!r} }}}}" if system and default else ""
    return (
        f"{{% if messages[0]['role'] != 'system' %}}{instead}{{% endif %}}"
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{own}{{% else %}}{{{{ {user[0]!r} }}}}"
        "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
        "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
        f"{{{{ {user[1]!r} }}}}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {answer!r} }}}}{{% endif %}}"
    )


VICUNA = _template(("USER: ", " "), "ASSISTANT:", ("", " "))
"""`USER: <image>\\nQUESTION ASSISTANT:`, of LLaVA-1.5 and BakLLaVA."""

VICUNA_NEXT = _template(("USER: ", " "), "ASSISTANT:", ("", " "), _VICUNA_SYSTEM)
"""The same behind Vicuna's system text, of LLaVA-NeXT."""

VIP = _template(("###Human: ", ""), "###Assistant:", ("", ""), _VICUNA_SYSTEM)
"""Vicuna's system text, `###Human: <image>\\nQUESTION###Assistant:`, of ViP-LLaVA."""

MISTRAL = _template(("[INST] ", " "), "[/INST]")
"""`[INST] <image>\\nQUESTION [/INST]`; knows no system text."""

_CHATML = (("<|im_start|>user\n", "<|im_end|>"), "<|im_start|>assistant\n", ("<|im_start|>system\n", "<|im_end|>"))
YI = _template(*_CHATML, default="Answer the questions.")
"""ChatML without line breaks between turns, of LLaVA-NeXT-34B."""

QWEN = _template(
    ("<|im_start|>user\n", "<|im_end|>\n"),
    "<|im_start|>assistant\n",
    ("<|im_start|>system\n", "<|im_end|>\n"),
    "You are a helpful assistant.",
)
"""ChatML, of LLaVA-NeXT-72B and -110B."""

ONEVISION = _template(
    ("<|im_start|>user ", "<|im_end|>"), "<|im_start|>assistant\n", ("<|im_start|>system \n", "<|im_end|>")
)
"""`<|im_start|>user <image>\\nQUESTION<|im_end|>` and no line break, of LLaVA-OneVision."""

_LLAMA3 = (
    ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
)
LLAMA3 = _template(*_LLAMA3)
"""Llama-3's turns, of LLaVA-Llama-3."""

LLAMA3_NEXT = _template(*_LLAMA3, default=_LLAMA3_SYSTEM)
"""The same behind a system text, of LLaVA-NeXT-8B."""

_YI_VOCABULARY, _LLAMA3_VOCABULARY = 64_000, 128_000


def llava(config: Any) -> str:
    """Choose the documented template of a LLaVA-1.5 configuration, whose language model is known by its vocabulary."""
    return _by_vocabulary(config.text_config, otherwise=VICUNA, llama3=LLAMA3)


def llava_next(config: Any) -> str:
    """Choose the documented template of a LLaVA-NeXT configuration, by type and vocabulary of its language model."""
    if config.text_config.model_type == "mistral":
        return MISTRAL
    return _by_vocabulary(config.text_config, otherwise=VICUNA_NEXT, llama3=LLAMA3_NEXT)


def llava_onevision(_config: Any) -> str:
    """Choose the documented template of LLaVA-OneVision."""
    return ONEVISION


def vip_llava(_config: Any) -> str:
    """Choose the documented template of ViP-LLaVA."""
    return VIP


def _by_vocabulary(text: Any, *, otherwise: str, llama3: str) -> str:
    if text.model_type == "qwen2":
        return QWEN
    if text.vocab_size >= _LLAMA3_VOCABULARY:
        return llama3
    return YI if text.vocab_size >= _YI_VOCABULARY else otherwise
