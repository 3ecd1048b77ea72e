"""What decoding takes and gives: spliced prompts, of any length, in; token ids out, made here or elsewhere."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from adafv.settings import RunSettings
from adafv.timing import Stopwatch


@dataclass(frozen=True)
class Spliced:
    """One prompt as the language model takes it.

    Args:
        embeddings: (L, D).
        positions: (L,) int64, RoPE positions.
        seed: of the tokens that are drawn for it, where any are.
        room: tokens that may be generated for it before the model's context is full; `None` where it has no end.
        strikes: how often a server has died while it was at this prompt.
        head: tokens at its start that prompts with an equal `alike` begin with as well; fewer than all.
        alike: names the head; `None` where no other prompt is known to have it.
    """

    embeddings: Tensor
    positions: Tensor
    seed: int = 0
    room: int | None = None
    strikes: int = 0
    head: int = 0
    alike: Hashable | None = None


@dataclass(frozen=True)
class Decoded:
    """What was generated for one prompt: token ids with the end token, and whether there was one.

    `server_s` is how long another process had the prompt, its queue included; `None` where it was answered here.
    `shared` counts the tokens of its prompt that were prefilled for another prompt of the batch.
    """

    ids: list[int]
    stopped: bool
    server_s: float | None = None
    shared: int = 0


class Decoder(Protocol):
    """Makes answers of spliced prompts, here or elsewhere.

    `requests` is how many prompts it works on while others are made ready; 0 where it answers before it returns.
    """

    requests: int

    def __call__(self, prompts: Sequence[Spliced], run: RunSettings, watch: Stopwatch) -> list[Future[Decoded]]:
        """Take a batch of prompts; each answer is there, or its error, when its future is done.

        Raises:
            InputError, DeviceError: the batch is not taken, and nothing of it is answered.
        """


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
