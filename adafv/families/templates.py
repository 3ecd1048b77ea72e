"""Which documented chat template a checkpoint without one gets, by its family and its language model."""

from __future__ import annotations

from typing import Any

_YI_VOCABULARY, _LLAMA3_VOCABULARY = 64_000, 128_000
_VICUNA_VOCABULARY = range(32_000, 32_129)  # Llama's, with the tokens added for images and padding


def llava(config: Any) -> str:
    """Name the documented template of a LLaVA-1.5 configuration, whose language model is known by its vocabulary."""
    return _by_vocabulary(config.text_config, otherwise="vicuna", llama3="llama3")


def llava_next(config: Any) -> str:
    """Name the documented template of a LLaVA-NeXT configuration, by type and vocabulary of its language model."""
    if config.text_config.model_type == "mistral":
        return "mistral"
    return _by_vocabulary(config.text_config, otherwise="vicuna-next", llama3="llama3-next")


def llava_onevision(_config: Any) -> str:
    """Name the documented template of LLaVA-OneVision."""
    return "onevision"


def vip_llava(_config: Any) -> str:
    """Name the documented template of ViP-LLaVA."""
    return "vip"


def is_vicuna(config: Any) -> bool:
    """Tell whether LLaVA-1.5's or LLaVA-NeXT's language model is a Vicuna, whose system text their code puts first."""
    text = config.text_config
    return (
        config.model_type in ("llava", "llava_next")
        and text.model_type == "llama"
        and text.vocab_size in _VICUNA_VOCABULARY
    )


def _by_vocabulary(text: Any, *, otherwise: str, llama3: str) -> str:
    if text.model_type == "qwen2":
        return "qwen"
    if text.vocab_size >= _LLAMA3_VOCABULARY:
        return llama3
    return "yi" if text.vocab_size >= _YI_VOCABULARY else otherwise
