"""Splice, prefill and decode: embeddings of any length in, token ids out, by transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria

from adafv.settings import RunSettings
from adafv.timing import Stopwatch


@dataclass(frozen=True)
class Spliced:
    """One prompt as the language model takes it.

    Args:
        embeddings: (L, D).
        positions: (L,) int64, RoPE positions.
    """

    embeddings: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Decoded:
    """What was generated for one prompt: token ids with the end token, and whether there was one."""

    ids: list[int]
    stopped: bool


def splice(before: Tensor, visual: Tensor, after: Tensor, places: Tensor, unpruned: int, original: bool) -> Spliced:
    """Text before the image, the kept visual tokens, text after it.

    Args:
        before, after: (T, D) embeddings of text.
        visual: (K, D) kept visual tokens.
        places: (K,) their places among the `unpruned` packed tokens.
        unpruned: packed tokens of the unpruned image.
        original: keep the positions of the unpruned prompt rather than number afresh.
    """
    embeddings = torch.cat([before, visual.to(before.dtype), after])
    positions = torch.arange(len(embeddings), device=embeddings.device)
    if original:
        tail = len(before) + unpruned + torch.arange(len(after), device=embeddings.device)
        positions = torch.cat([positions[: len(before)], len(before) + places, tail])
    return Spliced(embeddings, positions)


def left_pad(prompts: Sequence[Spliced]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (B, L, D), attention mask (B, L) and positions (B, L), padded in front so that all end together."""
    longest = max(len(prompt.embeddings) for prompt in prompts)
    first = prompts[0].embeddings
    embeddings = first.new_zeros(len(prompts), longest, first.shape[1])
    mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=first.device)
    positions = torch.zeros_like(mask)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt.embeddings)
        embeddings[row, start:] = prompt.embeddings
        mask[row, start:] = 1
        positions[row, start:] = prompt.positions
    return embeddings, mask, positions


class _FirstToken(StoppingCriteria):  # type: ignore[misc]
    """Stops nothing; reads the clock when the first token is there, which ends prefill."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self.at: float | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if self.at is None:
            self.at = self._watch.now()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def generate(model: Any, prompts: Sequence[Spliced], run: RunSettings, watch: Stopwatch) -> list[Decoded]:
    """Prefill and decode a batch; adds to `watch` under `prefill` and `decode`.

    Args:
        model: a LLaVA model of transformers.
        prompts: B spliced prompts.
        run: generation settings; sampling leaves the caller's random state as it was.
        watch: gets the seconds up to the first token and those after it.
    """
    start = watch.now()
    embeddings, mask, positions = left_pad(prompts)
    clock = _FirstToken(watch)
    devices = [embeddings.device] if embeddings.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(run.seed)
        rows = model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            generation_config=_config(run),
            stopping_criteria=[clock],
        ).tolist()
    end = watch.now()
    first = clock.at if clock.at is not None else end
    watch.add("prefill", first - start)
    watch.add("decode", end - first)
    return [_cut(row, model.generation_config.eos_token_id) for row in rows]


def _config(run: RunSettings) -> GenerationConfig:
    if run.temperature == 0:
        return GenerationConfig(max_new_tokens=run.max_new_tokens, do_sample=False)
    return GenerationConfig(
        max_new_tokens=run.max_new_tokens,
        do_sample=True,
        temperature=run.temperature,
        top_p=run.top_p,
        top_k=0,
    )


def _cut(ids: list[int], eos: int | list[int] | None) -> Decoded:
    """Rows that ended early are padded up to the longest: cut behind the first end token."""
    ends = set(eos) if isinstance(eos, list) else {eos}
    for place, token in enumerate(ids):
        if token in ends:
            return Decoded(ids[: place + 1], True)
    return Decoded(ids, False)
