"""Prefills and decodes spliced prompts with the loaded model, by transformers' own `generate`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria

from adafv.decoding import Decoded, Spliced
from adafv.errors import InputError, cut
from adafv.families.hooks import in_one_piece
from adafv.memory import is_out_of_memory
from adafv.prefixes import Start, refusal, start
from adafv.sampling import Chooser
from adafv.settings import RunSettings
from adafv.stepping import Begun, Steps
from adafv.stepping import refusal as why_plain
from adafv.timing import Stopwatch

log = logging.getLogger(__name__)


class Generating:
    """Decodes with the loaded model itself: all answers are there when it returns.

    Args:
        model: a LLaVA model of transformers.
        compile: decode in compiled steps, where the model can; the answers are the same without.
        steps: that are used then, instead of compiled ones.

    Attributes:
        share: whether what prompts of a batch begin with is prefilled once; the answers are the same without.
        plain: why steps are not compiled although they were to be; empty where nothing is in the way.
        unfit: questions so far that, asked alone, did not fit into memory in compiled steps, and were tried without.
    """

    requests = 0

    def __init__(self, model: Any, *, compile: bool = False, steps: Steps | None = None) -> None:
        self._model, self.share, self.unfit = model, True, 0
        self.plain = why_plain(model) if compile else ""
        self._steps = (steps or Steps(model)) if compile and not self.plain else None
        self._plainly, self._lock = 0, Lock()
        if why := refusal(model):
            log.info("questions about one image are prefilled one by one: %s", why)

    @property
    def compiles(self) -> bool:
        """Whether decoding is done in compiled steps."""
        return self._steps is not None

    @property
    def described(self) -> dict[str, object]:
        """Tell what compiling came to, where it was asked for."""
        return {"compile": self.compiles} if self.compiles or self.plain else {}

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Decode without compiled steps as long as the `with` lasts, whichever thread asks."""
        with self._lock:
            self._plainly += 1
        try:
            yield
        finally:
            with self._lock:
                self._plainly -= 1

    def __call__(self, prompts: Sequence[Spliced], run: RunSettings, watch: Stopwatch) -> list[Future[Decoded]]:
        """Answer a batch of prompts; raises as `generate` does."""
        steps = None if self._plainly else self._steps
        if steps is not None:
            try:
                return self._answered(prompts, run, watch, steps)
            except Exception as error:  # compilers raise anything; what is the prompts' fault comes again below
                full, why = is_out_of_memory(error), cut((str(error).strip().splitlines() or [""])[0])
                if full or isinstance(error, InputError):
                    steps.let_go()
                if isinstance(error, InputError) or (full and len(prompts) > 1):  # half of them may fit
                    raise
                if full:  # a cache of fixed size has places that are never used: without, the question may fit
                    self.unfit += 1
                    log.info("a question does not fit into memory in compiled steps, and is decoded as ever: %s", why)
                else:
                    self.plain = f"{type(error).__name__}: {why}"
                    self._steps = None
                    log.warning("decoding is not compiled any more", exc_info=True)
        return self._answered(prompts, run, watch)

    def _answered(
        self, prompts: Sequence[Spliced], run: RunSettings, watch: Stopwatch, steps: Steps | None = None
    ) -> list[Future[Decoded]]:
        return [_done(one) for one in generate(self._model, prompts, run, watch, share=self.share, steps=steps)]


def _done(decoded: Decoded) -> Future[Decoded]:
    future: Future[Decoded] = Future()
    future.set_result(decoded)
    return future


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


def generate(
    model: Any,
    prompts: Sequence[Spliced],
    run: RunSettings,
    watch: Stopwatch,
    *,
    share: bool = True,
    steps: Steps | None = None,
) -> list[Decoded]:
    """Prefill and decode a batch; adds to `watch` under `prefill` and `decode`.

    Args:
        model: a LLaVA model of transformers.
        prompts: B spliced prompts.
        run: generation settings; sampling leaves the caller's random state as it is.
        watch: gets the seconds up to the first token and those after it.
        share: prefill once what prompts begin with, where that is worth it.
        steps: that tokens behind the first are decoded in; `None` leaves them to the model's own `generate`.

    Raises:
        InputError: logits that are NaN or infinite.
    """
    began, device = watch.now(), prompts[0].embeddings.device
    watcher = _Watcher(watch, torch.tensor(ends_of(model), dtype=torch.long, device=device))
    chooser = Chooser(run, [prompt.seed for prompt in prompts], device)
    limits = [min(run.max_new_tokens, prompt.room or run.max_new_tokens) for prompt in prompts]
    with in_one_piece(model.get_output_embeddings()):
        begin = start(model, prompts, share=share)
    rows = _in_rounds(model, begin, limits, watcher, chooser, steps)
    if chooser.finite is not None and not chooser.finite:
        raise InputError(
            "the language model's scores are not finite",
            "float16 may have overflowed: try --dtype bfloat16 or float32; otherwise fetch the checkpoint again",
        )
    end = watch.now()
    first = watcher.first_at if watcher.first_at is not None else end
    watch.add("prefill", first - began)
    watch.add("decode", end - first)
    ends = ends_of(model)
    return [Decoded(ids, ids[-1] in ends, shared=shared) for ids, shared in zip(rows, begin.shared, strict=True)]


def _in_rounds(
    model: Any, begin: Start, limits: Sequence[int], watcher: _Watcher, chooser: Chooser, steps: Steps | None
) -> list[list[int]]:
    """Generate in rounds: after each, the rows that have ended, or are as long as their limit, leave the cache.

    With `steps` there is one round, of one token; they do the rest.

    Returns:
        The ids of each row, with the end token where there is one.
    """
    cache, mask, positions = begin.cache, begin.mask, begin.positions
    prompt: dict[str, Tensor] = {"inputs_embeds": begin.embeddings}
    rows: list[list[int]] = [[] for _ in begin.embeddings]
    alive, fed = list(range(len(rows))), 0
    while alive:
        done, shortest = len(rows[alive[0]]), 1 if steps is not None else min(limits[row] for row in alive)
        watcher.restart()
        chooser.restart(alive, done - fed)
        with in_one_piece(model.get_output_embeddings()):  # not around `steps`, which would be compiled with the hook
            generated = model.generate(
                **prompt,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                generation_config=GenerationConfig(max_new_tokens=shortest - done, do_sample=False),
                stopping_criteria=[watcher],
                logits_processor=[chooser],
            )[:, fed:]
        fresh = generated.shape[1]
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
        mask = torch.cat([mask[kept], mask.new_ones(len(stay), fresh)], dim=1)
        positions = positions[kept, -1:] + fresh
        if steps is not None:
            left = [limits[row] - 1 for row in alive]
            begun = Begun(cache, prompt["input_ids"], mask, positions, alive, left)
            for row, ids in zip(alive, steps(begun, ends, chooser), strict=True):
                rows[row] += _until_end(ids[: limits[row] - 1], ends)
            break
    return rows


def ends_of(model: Any) -> list[int]:
    """Ids of the tokens that end an answer."""
    eos: int | list[int] | None = model.generation_config.eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def _until_end(ids: list[int], ends: list[int]) -> list[int]:
    """Rows that ended before the round did are padded: cut behind the first end token."""
    return next((ids[: place + 1] for place, token in enumerate(ids) if token in ends), ids)
