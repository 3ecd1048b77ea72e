"""Decodes in steps of few shapes, so that a step can be compiled, and on CUDA recorded once and replayed.

A batch is prefilled as ever, what its prompts share included. Then its keys and values move into a cache of fixed size,
where places that are not in use are masked: rows and places are rounded up to a few sizes, since each new pair of them
has to be compiled, or recorded. Nothing is approximated: what is masked weighs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache

from adafv.sampling import Chooser

log = logging.getLogger(__name__)

_KINDS = ("cpu", "cuda", "xpu")  # of devices that torch compiles for
_PLACES = 64  # in the smallest cache, and by how many tokens an answer may grow before its cache does
_LOOK = 4  # steps after which an accelerator is asked what has ended: asking makes it wait

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Begun:
    """A batch behind its first token.

    Args:
        cache: keys and values of the prompts, L places; emptied when they have moved.
        ids: (B, 1) tokens that have no place yet.
        mask, positions: (B, L + 1), (B, 1): what a row looks at, and where its token stands.
        rows: by which the chooser knows them.
        limits: tokens that each row may still have.
    """

    cache: DynamicCache
    ids: Tensor
    mask: Tensor
    positions: Tensor
    rows: Sequence[int]
    limits: Sequence[int]


class Steps:
    """Takes batches on by a token at a time, in caches that are used again.

    Args:
        model: a LLaVA model of transformers that `refusal` has nothing against.
        forward: takes one step; the model's own, compiled, where none is given.
    """

    def __init__(self, model: Any, forward: Forward | None = None) -> None:
        self._config = model.config.get_text_config()
        self._device = model.get_input_embeddings().weight.device
        self._forward = forward or _compiled(model, self._device)
        cuda = self._device.type == "cuda"
        self._mark: Callable[[], object] = torch.compiler.cudagraph_mark_step_begin if cuda else lambda: None
        self._look = 1 if self._device.type == "cpu" else _LOOK
        self._caches: dict[int, tuple[int, StaticCache]] = {}  # by rows: places, and the cache

    def let_go(self) -> None:
        """Free the caches."""
        self._caches.clear()

    def __call__(self, begun: Begun, ends: Sequence[int], chooser: Chooser) -> list[list[int]]:
        """Decode until each row has an end token, or is as long as it may be.

        Args:
            begun: the batch.
            ends: ids that end a row.
            chooser: of tokens; it has chosen the first ones.

        Returns:
            The ids of each row behind its first token, with some behind its end or limit.
        """
        with torch.inference_mode(False), torch.no_grad():  # caches outlive the mode that they are made in
            return self._decode(begun, torch.tensor(list(ends), dtype=torch.long, device=self._device), chooser)

    def _decode(self, begun: Begun, ends: Tensor, chooser: Chooser) -> list[list[int]]:
        made: list[list[int]] = [[] for _ in begun.rows]
        living, stay = list(range(len(made))), list(range(len(made)))  # rows, and their places in the last batch
        cache: Cache = begun.cache
        ids, seen, positions = begun.ids, begun.mask.bool(), begun.positions
        while living:
            used, done = seen.shape[1] - 1, len(made[living[0]])
            size = _rows(len(living), len(made))
            order = torch.tensor(stay + stay[:1] * (size - len(stay)))  # padded with a row that is there
            cache, places = self._moved(cache, order, used, max(begun.limits[row] for row in living) - done)
            chooser.restart([begun.rows[living[min(at, len(living) - 1)]] for at in range(size)], 0)
            ids, positions = ids[order], positions[order]
            mask = torch.zeros(size, places, dtype=torch.bool, device=self._device)
            mask[:, : used + 1] = seen[order]
            limits = torch.tensor([begun.limits[row] for row in living] + [0] * (size - len(living))).to(self._device)
            ended = limits <= done
            columns: list[Tensor] = []
            while used < places:
                mask[:, used] = True
                scores = self._step(ids, mask, positions, cache)
                used, done = used + 1, done + 1
                ids = chooser.choose(done, scores).argmax(dim=-1, keepdim=True)
                positions = positions + 1
                columns.append(ids)
                ended = ended | torch.isin(ids[:, 0], ends) | (limits <= done)
                if len(columns) % self._look == 0:
                    left = size - int(ended.sum())
                    if not left or _rows(left, len(made)) <= size // 4:  # fewer is not worth a move
                        break
            for row, more in zip(living, torch.cat(columns, dim=1).tolist(), strict=False):
                made[row] += more
            stay = [at for at, over in enumerate(ended[: len(living)].tolist()) if not over]
            living = [living[at] for at in stay]
            seen = torch.cat([mask[:, :used], mask.new_ones(size, 1)], dim=1)
        return made

    def _step(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: StaticCache) -> Tensor:
        """Take one step: (B, V) float32 scores, a copy, since the next step overwrites what a graph gives."""
        self._mark()
        logits: Tensor = self._forward(
            input_ids=ids,
            attention_mask=mask[:, None, None],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits[:, -1].to(dtype=torch.float32, copy=True)

    def _moved(self, cache: Cache, order: Tensor, used: int, more: int) -> tuple[StaticCache, int]:
        """Copy rows of a cache into one of fixed size; the keys and values of a dynamic one are freed.

        Args:
            cache: that has them.
            order: which rows; so many has the new one.
            used: places that hold something.
            more: places that are needed behind those.

        Returns:
            The cache, and its places.
        """
        needed = _places(used + min(more, _PLACES))
        places, found = self._caches.get(len(order), (0, None))
        if found is None or found is cache or not needed <= places <= 2 * needed:
            found, places = StaticCache(config=self._config, max_cache_len=needed), needed
            self._caches[len(order)] = (places, found)
        else:
            found.reset()
        for number, layer in enumerate(cache.layers):
            keys, values = layer.keys[order, :, :used], layer.values[order, :, :used]
            if isinstance(cache, DynamicCache):
                layer.batch_select_indices(order[:0])
            found.update(keys, values, number)
        return found, places


def refusal(model: Any) -> str:
    """Say why a model cannot be decoded so; empty where it can."""
    text, quantizer = model.config.get_text_config(), getattr(model, "hf_quantizer", None)
    devices = {parameter.device.type for parameter in model.parameters()}
    if quantizer is not None and not quantizer.is_compileable:
        return "its quantized layers cannot be compiled"
    if len({parameter.device for parameter in model.parameters()}) != 1 or not devices <= set(_KINDS):
        return f"its weights are on {', '.join(sorted(devices))}: they have to be on one device that torch compiles for"
    if text._attn_implementation != "sdpa":
        return f"{text._attn_implementation} attention has no masks of fixed size here"
    if any(DynamicCache(config=text).is_sliding):
        return "its attention has a sliding window"
    return ""


def _compiled(model: Any, device: torch.device) -> Forward:
    """Compile the model's forward when it is first called; on CUDA its kernels are recorded as one graph, too."""
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled: Forward = torch.compile(model.__call__, mode=mode)
    return compiled


def _rows(count: int, asked: int) -> int:
    """Round rows up to a power of two; one is a size of its own, which only a batch of one has."""
    return 1 if asked == 1 else max(2, 1 << (count - 1).bit_length())


def _places(count: int) -> int:
    """Round places up to 64, 96, 128, 192, 256, 384 and so on."""
    power = max(_PLACES, 1 << (count - 1).bit_length())
    return power * 3 // 4 if power > _PLACES and count <= power * 3 // 4 else power
