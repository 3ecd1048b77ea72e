"""Splice, prefill and decode: embeddings of any length in, token ids out, by transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, StoppingCriteria, TopPLogitsWarper

from adafv.errors import InputError
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
    """

    embeddings: Tensor
    positions: Tensor
    seed: int = 0
    room: int | None = None
    strikes: int = 0


@dataclass(frozen=True)
class Decoded:
    """What was generated for one prompt: token ids with the end token, and whether there was one.

    `server_s` is how long another process had the prompt, its queue included; `None` where it was answered here.
    """

    ids: list[int]
    stopped: bool
    server_s: float | None = None


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


class Generating:
    """Decodes with the loaded model itself: all answers are there when it returns.

    Args:
        model: a LLaVA model of transformers.
    """

    requests = 0

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, prompts: Sequence[Spliced], run: RunSettings, watch: Stopwatch) -> list[Future[Decoded]]:
        """Answer a batch of prompts; raises as `generate` does."""
        return [_done(decoded) for decoded in generate(self._model, prompts, run, watch)]


def _done(decoded: Decoded) -> Future[Decoded]:
    future: Future[Decoded] = Future()
    future.set_result(decoded)
    return future


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


class _Watcher(StoppingCriteria):  # type: ignore[misc]
    """Reads the clock when the first token is there, and calls a halt when enough rows have ended to leave.

    A row that has ended would be computed on until the longest one ends. Once half of the rows have, it is cheaper
    to stop, take them out, and go on with the others.
    """

    def __init__(self, watch: Stopwatch, ends: Tensor) -> None:
        self._watch, self._ends = watch, ends
        self._ended: Tensor | None = None
        self.first_at: float | None = None

    def restart(self) -> None:
        """Forget the rows seen so far."""
        self._ended = None

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if self.first_at is None:
            self.first_at = self._watch.now()
        now = torch.isin(input_ids[:, -1], self._ends)
        self._ended = now if self._ended is None else self._ended | now
        half = 2 * self._ended.sum() >= len(input_ids)
        return half.expand(len(input_ids))


class _Chooser(LogitsProcessor):  # type: ignore[misc]
    """Passes greedy logits through; draws a sampled token itself, and masks all others for `generate`'s argmax.

    Each row has random numbers of its own: what is drawn for it depends neither on the batch nor on other rows. It
    also remembers whether the first token's scores were numbers; asked once, when all is done.
    """

    _AHEAD = 64  # random numbers of a row that are made together

    def __init__(self, run: RunSettings, seeds: Sequence[int], device: torch.device) -> None:
        self._temperature, self._top_p = run.temperature, run.top_p
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._draws = torch.empty(len(seeds), 0, device=device)  # (B, steps so far)
        self._rows, self._offset = list(range(len(seeds))), 0
        self.finite: Tensor | None = None

    def restart(self, rows: list[int], offset: int) -> None:
        """Go on with these rows; they have `offset` tokens more than `input_ids` will show."""
        self._rows, self._offset = rows, offset

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.finite is None:
            self.finite = torch.isfinite(scores).all()
        if not self._temperature:
            return scores
        draw = self._drawn(self._offset + input_ids.shape[1])
        scores = (scores - scores.amax(dim=1, keepdim=True)) / self._temperature
        if self._top_p < 1:
            scores = TopPLogitsWarper(self._top_p)(input_ids, scores)
        shares = scores.softmax(dim=1).cumsum(dim=1)
        drawn = (shares <= draw * shares[:, -1:]).sum(dim=1, keepdim=True)
        last = (shares < shares[:, -1:]).sum(dim=1, keepdim=True)  # that may be drawn, should the product round up
        return torch.full_like(scores, -torch.inf).scatter(1, torch.minimum(drawn, last), 0.0)

    def _drawn(self, step: int) -> Tensor:
        """Draw the random number of each present row for the token at `step`: (rows, 1)."""
        if step >= self._draws.shape[1]:
            more = torch.stack([torch.rand(self._AHEAD, generator=one) for one in self._generators])
            self._draws = torch.cat([self._draws, more.to(self._draws.device)], dim=1)
        return self._draws[self._rows, step, None]


def generate(model: Any, prompts: Sequence[Spliced], run: RunSettings, watch: Stopwatch) -> list[Decoded]:
    """Prefill and decode a batch; adds to `watch` under `prefill` and `decode`.

    Args:
        model: a LLaVA model of transformers.
        prompts: B spliced prompts.
        run: generation settings; sampling leaves the caller's random state as it is.
        watch: gets the seconds up to the first token and those after it.

    Raises:
        InputError: logits that are NaN or infinite.
    """
    start = watch.now()
    embeddings, mask, positions = left_pad(prompts)
    ends = torch.tensor(ends_of(model), dtype=torch.long, device=embeddings.device)
    watcher = _Watcher(watch, ends)
    chooser = _Chooser(run, [prompt.seed for prompt in prompts], embeddings.device)
    limits = [min(run.max_new_tokens, prompt.room or run.max_new_tokens) for prompt in prompts]
    rows = _in_rounds(model, embeddings, mask, positions, limits, watcher, chooser)
    if chooser.finite is not None and not chooser.finite:
        raise InputError(
            "the language model's scores are not finite",
            "float16 may have overflowed: try --dtype bfloat16 or float32; otherwise fetch the checkpoint again",
        )
    end = watch.now()
    first = watcher.first_at if watcher.first_at is not None else end
    watch.add("prefill", first - start)
    watch.add("decode", end - first)
    return [Decoded(ids, ids[-1] in ends_of(model)) for ids in rows]


def _in_rounds(
    model: Any,
    embeddings: Tensor,
    mask: Tensor,
    positions: Tensor,
    limits: Sequence[int],
    watcher: _Watcher,
    chooser: _Chooser,
) -> list[list[int]]:
    """Generate in rounds: after each, the rows that have ended, or are as long as their limit, leave the cache.

    Returns:
        The ids of each row, with the end token where there is one.
    """
    cache = DynamicCache(config=model.config.get_text_config())
    prompt: dict[str, Tensor] = {"inputs_embeds": embeddings}
    rows: list[list[int]] = [[] for _ in embeddings]
    alive, fed = list(range(len(rows))), 0
    while alive:
        done, shortest = len(rows[alive[0]]), min(limits[row] for row in alive)
        watcher.restart()
        chooser.restart(alive, done - fed)
        generated = model.generate(
            **prompt,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            generation_config=GenerationConfig(max_new_tokens=shortest - done, do_sample=False),
            stopping_criteria=[watcher],
            logits_processor=[chooser],
        )[:, fed:]
        steps = generated.shape[1]
        for row, ids in zip(alive, generated.tolist(), strict=True):
            rows[row] += _until_end(ids, ends_of(model))
        ends = ends_of(model)
        stay = [i for i, row in enumerate(alive) if rows[row][-1] not in ends and len(rows[row]) < limits[row]]
        if not stay:
            break
        alive = [alive[i] for i in stay]
        kept = torch.tensor(stay)  # on the CPU, since each layer's cache is on its layer's device
        cache.batch_select_indices(kept)
        # The last token has no place in the cache yet: it is what the next round begins with.
        prompt, fed = {"input_ids": generated[kept, -1:]}, 1
        mask = torch.cat([mask[kept], mask.new_ones(len(stay), steps)], dim=1)
        positions = positions[kept, -1:] + steps
    return rows


def ends_of(model: Any) -> list[int]:
    """Ids of the tokens that end an answer."""
    eos: int | list[int] | None = model.generation_config.eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def _until_end(ids: list[int], ends: list[int]) -> list[int]:
    """Rows that ended before the round did are padded: cut behind the first end token."""
    return next((ids[: place + 1] for place, token in enumerate(ids) if token in ends), ids)
