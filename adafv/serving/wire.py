"""What is sent for a prompt, and what comes back: completions of prompt embeddings, as vLLM speaks them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adafv.decoding import Decoded, Spliced
from adafv.errors import InputError
from adafv.serving.client import Struck
from adafv.settings import RunSettings

COMPLETIONS, MODELS = "/v1/completions", "/v1/models"

# Whatever a server would otherwise take from the checkpoint's generation_config.json, or from its own defaults.
_PLAIN: dict[str, Any] = {
    "n": 1,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
    "stop": [],
    "ignore_eos": False,
    "add_special_tokens": False,
    "stream": False,
    "echo": False,
    "return_token_ids": True,
}


def packed(embeddings: Tensor) -> str:
    """Pack embeddings (L, D) for the wire: base64 of what `torch.save` writes.

    Raises:
        InputError: a value that is not finite, which would spoil the answers to other questions on the server, too.
    """
    if not torch.isfinite(embeddings).all():
        what = "the prompt's embeddings are not finite, and a server would answer others at random, too"
        raise InputError(what, "float16 may have overflowed: try --dtype bfloat16 or float32")
    held = io.BytesIO()
    torch.save(embeddings.detach().to("cpu", copy=True).contiguous().clone(), held)  # a view would bring all behind it
    return base64.b64encode(held.getvalue()).decode("ascii")


def sampling(run: RunSettings, prompt: Spliced, ends: Sequence[int], most: int) -> dict[str, Any]:
    """Say how a prompt is answered, every field of it: the server draws its own random numbers, from the same seed.

    Args:
        run: the settings.
        prompt: brings its seed.
        ends: ids of the tokens that end an answer.
        most: tokens that may be generated.
    """
    drawn = {"temperature": run.temperature, "top_p": run.top_p if run.temperature else 1.0, "seed": prompt.seed}
    return _PLAIN | drawn | {"max_tokens": most, "stop_token_ids": list(ends)}


def greedy(most: int) -> dict[str, Any]:
    """Say that a prompt is answered with exactly `most` tokens, the likeliest ones."""
    return _PLAIN | {"temperature": 0.0, "top_p": 1.0, "seed": 0, "max_tokens": most, "ignore_eos": True}


def read(reply: Any) -> Decoded:
    """Read a completion.

    Raises:
        Struck: it was broken off.
        ValueError: it is no completion with token ids.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    ids, reason = choice.get("token_ids"), choice.get("finish_reason")
    if not isinstance(ids, list) or not all(isinstance(one, int) for one in ids):
        raise ValueError("its completions have no token_ids")
    if reason not in ("stop", "length") or not ids:
        raise Struck(f"an answer was broken off ({reason})")
    return Decoded(ids, stopped=reason == "stop")
