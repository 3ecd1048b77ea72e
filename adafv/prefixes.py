"""Prefills once what several prompts of a batch begin with: the text before an image, and what is kept of the image.

The different heads go through the model first; their keys and values are copied to the rows that begin with them, and
what is left of every prompt, its tail, is prefilled behind. Both are padded in front: a row is `padding, head, padding,
tail`, at positions that count no padding. Nothing is approximated: a row attends to what it would attend to alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from adafv.decoding import Spliced, left_pad

WORTH = 128  # tokens that have to be saved: a second pass over the weights takes about as long as these
_MASKED = ("sdpa", "eager")  # attention that takes padding in the middle of a row


@dataclass(frozen=True)
class Start:
    """Where a batch's prefill starts.

    Args:
        cache: keys and values of the heads, a row for each prompt; empty where there are none.
        embeddings, mask, positions: (B, L, D), (B, L), (B, L) of whole prompts; where there are heads, nothing is
            looked at of their embeddings.
        shared: tokens of each prompt that were prefilled for another one.
    """

    cache: DynamicCache
    embeddings: Tensor
    mask: Tensor
    positions: Tensor
    shared: Sequence[int]


def start(model: Any, prompts: Sequence[Spliced], *, share: bool = True) -> Start:
    """Prefill the heads that prompts `share`, where that is worth it and the model's attention can do it."""
    cache = DynamicCache(config=model.config.get_text_config())
    firsts = _firsts(prompts) if share else None
    if firsts is None or refusal(model):
        return Start(cache, *left_pad(prompts), [0] * len(prompts))
    numbers = list(dict.fromkeys(firsts))
    heads, mask, positions = left_pad([_part(prompts[number], 0, prompts[number].head) for number in numbers])
    model(
        inputs_embeds=heads,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    rows = torch.tensor([numbers.index(first) for first in firsts])  # on the CPU, as a layer may be on any device
    cache.batch_select_indices(rows)
    tails, tail_mask, tail_positions = left_pad([_part(prompt, prompt.head) for prompt in prompts])
    return Start(
        cache,
        torch.cat([tails.new_zeros(()).expand(len(prompts), *heads.shape[1:]), tails], dim=1),
        torch.cat([mask[rows], tail_mask], dim=1),
        torch.cat([positions[rows], tail_positions], dim=1),
        [0 if first == number else prompts[number].head for number, first in enumerate(firsts)],
    )


def refusal(model: Any) -> str:
    """Say why a model cannot prefill heads on their own; empty where it can."""
    text = model.config.get_text_config()
    if text._attn_implementation not in _MASKED:
        return f"{text._attn_implementation} has no masks with padding in the middle"
    if any(DynamicCache(config=text).is_sliding):  # a window counts places, padding among them
        return "its attention has a sliding window"
    return ""


def _firsts(prompts: Sequence[Spliced]) -> list[int] | None:
    """Find for each prompt the first one with the same head; `None` where sharing heads is not worth it."""
    known: dict[object, int] = {}
    firsts = [
        number if prompt.alike is None else known.setdefault(prompt.alike, number)
        for number, prompt in enumerate(prompts)
    ]
    longest = max(len(prompt.embeddings) for prompt in prompts)
    head, tail = max(prompt.head for prompt in prompts), max(len(prompt.embeddings) - prompt.head for prompt in prompts)
    saved = len(prompts) * (longest - tail) - len(set(firsts)) * head
    return firsts if saved >= WORTH else None


def _part(prompt: Spliced, begin: int, end: int | None = None) -> Spliced:
    return replace(prompt, embeddings=prompt.embeddings[begin:end], positions=prompt.positions[begin:end])
