"""What is patched into a model: hears how images are encoded, and shortens what its language model is fed.

transformers merges text and image as always; what goes on into the language model then lacks the tokens that are not
kept. `generate` still counts the whole prompt: ids, limits and its logits processors are those of the unpruned model,
and only the key/value cache and what it is asked with are shorter.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from adafv import pruners
from adafv.encoding import ImageEncoding
from adafv.errors import InputError
from adafv.evidence import check_scores
from adafv.families.base import Family
from adafv.pipeline import Pipeline, reads_keys
from adafv.prompt import Prompt
from adafv.records import Question
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.timing import Stopwatch

_OVERRIDDEN = ("vision_feature_layer", "vision_feature_select_strategy", "vision_aspect_ratio")
_ONE_IMAGE = "give each prompt one image, and each image a prompt"
_GENERATE = "call model.generate once for each answer, with its usual cache"


@dataclass
class _Merge:
    """Prompts that images are being merged into.

    Args:
        ids: (B, L).
        images: encoded; `None` before they are.
    """

    ids: Tensor
    images: list[ImageEncoding] | None


@dataclass(frozen=True)
class _Prompts:
    """Pruned prompts that are in a cache.

    Args:
        fed: (B, K) int64, 1 for tokens that the language model was fed, 0 for padding.
        numbered: (B, K or L) int64, the mask by which positions are counted on.
        length: L, of the whole prompts.
    """

    fed: Tensor
    numbered: Tensor
    length: int


class Patches:
    """What is put into a model for one `with`.

    Images are encoded either by `generate` before the first forward, or within that: their encodings come along on
    what encoding returns.
    """

    def __init__(self, model: Any, family: Family, run: RunSettings) -> None:
        self._model, self._config, self._run = model.model, model.config, run
        self._pipeline, self._stages = Pipeline(model, None, family), family.stages(model, None)
        self._merges: dict[int, _Merge] = {}  # by the thread that runs the forward
        self._prompts: WeakKeyDictionary[Any, _Prompts] = WeakKeyDictionary()  # by their caches

    def encoding(self, encode: Any) -> Any:
        """Wrap transformers' `get_image_features`, to hear what its tower and projector make of the images."""
        stock = signature(type(self._model).get_image_features)

        @wraps(encode)  # generate reads the signature
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            given = stock.bind(self._model, *args, **kwargs).arguments
            for name in _OVERRIDDEN:
                own = getattr(self._config, name, None)
                if given.get(name) not in (None, own):
                    raise InputError(f"{name}: {given[name]!r} is not the configuration's {own!r}", "leave it out")
            pixels = self._stages.pixels(given["pixel_values"], given.get("image_sizes"))
            with self._stages.overhearing() as recorded:
                output = encode(*args, **kwargs)
            if sum(len(image.values) for image in pixels) != len(recorded["projected"]):
                raise InputError("several images in one prompt cannot be pruned", _ONE_IMAGE)
            images = self._stages.overheard(pixels, recorded, keys=reads_keys([self._run]))
            merge = self._merges.get(threading.get_ident())
            if merge is not None:
                merge.images = images
            elif not isinstance(output, tuple):
                output["encodings"] = images  # accelerate's hooks make the output anew, with all of its keys
            return output

        return get_image_features

    def begin(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note of prompts that images are merged into."""
        encoded = kwargs.get("mm_encoder_outputs") or {}
        if encoded.get("video") is not None or kwargs.get("pixel_values_videos") is not None:
            raise InputError("a video cannot be pruned", "leave `adafv.pruned` for prompts with videos")
        image = encoded.get("image")
        if image is None and kwargs.get("pixel_values") is None:
            return
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0] if args else None
        images = getattr(image, "encodings", None)
        if ids is None or (image is not None and images is None):
            what = "input_ids" if ids is None else "encodings of the images that were made within `adafv.pruned`"
            raise InputError(f"a prompt with images cannot be pruned without {what}", "give input_ids and pixel_values")
        self._merges[threading.get_ident()] = _Merge(ids, images)

    def cut(
        self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Leave out what is not kept of prompts that have just been merged, and go on with those of earlier calls."""
        merge, cache = self._merges.get(threading.get_ident()), kwargs.get("past_key_values")
        if merge is not None and merge.images:
            return args, kwargs | self._first(merge.ids, merge.images, cache, **kwargs)
        if cache is None or cache not in self._prompts:
            return None
        return args, kwargs | _next(self._prompts[cache], cache, **kwargs)

    def end(self, _module: Any, _args: Any, _output: Any) -> None:
        """Forget what was merged, whether that succeeded or not."""
        self._merges.pop(threading.get_ident(), None)

    @torch.no_grad()
    def _first(
        self,
        ids: Tensor,
        images: list[ImageEncoding],
        cache: Any,
        inputs_embeds: Tensor,
        attention_mask: Any = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Prune prompts: what changes of the language model's arguments."""
        if all(self._run.pruned_to(image.visual) is None for image in images):
            return {}
        ids = ids.to(inputs_embeds.device)
        whole = torch.ones_like(ids) if attention_mask is None else attention_mask
        if cache is None or cache.is_compileable or cache.get_seq_length() or whole.shape != ids.shape:
            raise InputError("a pruned prompt needs a cache of its own that grows, and a mask (B, L)", _GENERATE)
        whole = whole.to(ids.device)
        stays, inputs_embeds = self._chosen(images, ids, whole, inputs_embeds)
        order = stays.int().argsort(dim=1, stable=True)[:, -int(stays.sum(dim=1).max()) :]  # padding first
        fed = stays.gather(1, order).long()
        compact = self._run.positions == "compact"
        self._prompts[cache] = _Prompts(fed, fed if compact else whole, ids.shape[1])
        return {
            "inputs_embeds": inputs_embeds.take_along_dim(order[..., None], dim=1),
            "attention_mask": fed,
            "position_ids": _positions(fed) if compact else _positions(whole).gather(1, order) * fed,
        }

    def _chosen(
        self, images: list[ImageEncoding], ids: Tensor, whole: Tensor, embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tell which tokens of the whole prompts stay, (B, L) bool, and their embeddings, with merged ones in place."""
        slots, stays = ids == self._config.image_token_id, whole.bool()
        rows = slots.any(dim=1).nonzero()[:, 0].tolist()
        copies = len(rows) // len(images) or 1  # of each prompt: one for each beam
        places = [slots[row].nonzero()[:, 0] for row in rows]
        wanted = [len(image.packed) for image in images for _ in range(copies)]
        if [len(place) for place in places] != wanted:
            raise InputError(f"{len(images)} images for {len(rows) // copies} prompts cannot be pruned", _ONE_IMAGE)
        requests, texts = [], []
        for row, image, place in zip(rows[::copies], images, places[::copies], strict=True):
            check_scores("saliency", image.saliency)
            text = (stays[row] & ~slots[row]).nonzero()[:, 0]
            before, after = text[text < place[0]], text[text > place[-1]]
            if not len(after) and "text" in pruners.get(self._run.pruner).reads:
                raise InputError("there is no text behind the image, by which to choose", "put the question there")
            prompt = Prompt("", ids[row, before].tolist(), ids[row, after].tolist(), (0, len(after)))
            requests.append(Request(Question(row // copies, None, ""), prompt, image.to(ids.device)))
            texts.append(embeddings[row, text])
        kept = self._pipeline.prune(requests, texts, self._run, Stopwatch())
        if any(one.into is not None for one in kept):
            embeddings = embeddings.clone()
        for number, (row, place) in enumerate(zip(rows, places, strict=True)):
            one = kept[number // copies]
            stays[row, place] = False
            stays[row, place[one.places]] = True
            if one.into is not None:
                embeddings[row, place[one.places]] = one.tokens.to(embeddings)
        return stays, embeddings


def _next(
    prompts: _Prompts, cache: Any, inputs_embeds: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> dict[str, Tensor]:
    """Go on with pruned prompts by one token each: what changes of the language model's arguments."""
    (rows, width), (batch, tokens) = prompts.fed.shape, inputs_embeds.shape[:2]
    steps = cache.get_seq_length() - width + 1
    shape = (rows, prompts.length + steps)
    if (batch, tokens) != (rows, 1) or (attention_mask is not None and attention_mask.shape != shape):
        raise InputError("the cache of a pruned prompt goes on by one token at a time", _GENERATE)
    fed, numbered = (torch.cat([mask, mask.new_ones(rows, steps)], dim=1) for mask in (prompts.fed, prompts.numbered))
    return {"attention_mask": fed, "position_ids": _positions(numbered)[:, -1:]}


def _positions(mask: Tensor) -> Tensor:
    """Number the tokens of each row; padding has 0."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0) * mask
