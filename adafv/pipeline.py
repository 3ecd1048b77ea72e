"""The stages on tensors: encode image -> score -> prune -> splice -> prefill -> decode."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from adafv import pruners
from adafv.decoding import Decoded, Decoder, Generating, Spliced, splice
from adafv.encoding import ImageEncoding, Pixels
from adafv.errors import InputError
from adafv.evidence import Evidence, Selection, check_scores
from adafv.families.base import Family
from adafv.families.hooks import execution_device
from adafv.memory import is_out_of_memory, memory_explained
from adafv.pruners.crops import each
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.signals.gathering import gather_evidence
from adafv.timing import Stopwatch


@dataclass(frozen=True)
class Kept:
    """What is left of one prompt's image.

    Args:
        tokens: (K, D) visual tokens, newlines among them when nothing was pruned.
        places: (K,) their places among the packed tokens.
        by_saliency, by_similarity: (K,) bool, who chose them, where the pruner says so.
    """

    tokens: Tensor
    places: Tensor
    by_saliency: Tensor | None = None
    by_similarity: Tensor | None = None

    @classmethod
    def everything(cls, image: ImageEncoding) -> Kept:
        """Keep the whole image."""
        return cls(image.packed, torch.arange(len(image.packed), device=image.packed.device))

    @classmethod
    def chosen(cls, image: ImageEncoding, selection: Selection, row: int) -> Kept:
        """Keep what one row of a selection says."""
        places = image.candidates[selection.indices[row]]
        masks = (selection.by_saliency, selection.by_similarity)
        return cls(image.packed[places], places, *(None if mask is None else mask[row] for mask in masks))


@dataclass(frozen=True)
class Outcome:
    """What became of one request: the tokens kept of its image, and those that were generated."""

    kept: Kept
    decoded: Decoded


class Pipeline:
    """The stages of one loaded checkpoint, over batches of requests.

    Args:
        model: the Hugging Face model, wherever its weights are.
        processor: its processor.
        family: what is special about it.
        decoder: what answers the prompts; the model itself where none is given.
    """

    def __init__(self, model: Any, processor: Any, family: Family, decoder: Decoder | None = None) -> None:
        self.model = model
        self.decoder = decoder or Generating(model)
        # Positions that the model was made for, of prompt and answer together; `None` where its config says nothing.
        self.context: int | None = getattr(model.config.text_config, "max_position_embeddings", None)
        self.stages = family.stages(model, processor)
        self._home = execution_device(self.model.get_input_embeddings())
        held = {parameter.device for parameter in self.model.parameters() if parameter.device.type != "meta"}
        self.devices = sorted(held | {self._home}, key=str)

    def preprocess(self, image: Image, run: RunSettings | None = None) -> Pixels:
        """Turn one RGB image into pixels on the CPU; may be called from any thread.

        Args:
            image: upright.
            run: says whether to pad it to a square; without, the checkpoint's preprocessor does.

        Raises:
            ImageError: a strip too thin to be resized, or too long to be padded.
            InputError: padding where an image is cut into tiles.
        """
        run = run or RunSettings()
        return self.stages.preprocess(image, self.stages.padded(run.pad, run.protocol))

    @torch.inference_mode()
    def encode(self, images: list[Pixels], watch: Stopwatch) -> list[ImageEncoding]:
        """Encode images together; adds to `watch` under `vision`.

        Raises:
            InputError: saliency that is not finite.
            OutOfMemoryError: too many crops at once.
        """
        with watch.span("vision"), memory_explained():
            encodings = [encoding.to(self._home) for encoding in self.stages.encode(images)]
        for encoding in encodings:
            check_scores("saliency", encoding.saliency)
        return encodings

    def run(self, requests: Sequence[Request], run: RunSettings, watch: Stopwatch) -> list[Outcome]:
        """Answer B requests together, as `begin` does, and wait for their answers."""
        return [Outcome(kept, decoded.result()) for kept, decoded in self.begin(requests, run, watch)]

    @torch.inference_mode()
    def begin(
        self, requests: Sequence[Request], run: RunSettings, watch: Stopwatch
    ) -> list[tuple[Kept, Future[Decoded]]]:
        """Hand B requests to the decoder; adds to `watch` under `score`, `prune`, `prefill` and `decode`.

        Raises:
            InputError: a prompt longer than the model's context, or similarity that is not finite.
            OutOfMemoryError: too many prompts at once.
        """
        rooms = [self._room(request, run) for request in requests]  # before memory is taken for what cannot be answered
        self._reset_peak()
        with memory_explained():
            with watch.span("prefill"):
                texts = [self._embed(request) for request in requests]
            kept = self.prune(requests, texts, run, watch)
            with watch.span("prefill"):
                prompts = [_spliced(*parts, run) for parts in zip(requests, texts, kept, rooms, strict=True)]
            return list(zip(kept, self.decoder(prompts, run, watch), strict=True))

    def prune(
        self, requests: Sequence[Request], texts: Sequence[Tensor], run: RunSettings, watch: Stopwatch
    ) -> list[Kept]:
        """Choose the tokens that are kept of B requests' images; adds to `watch` under `score` and `prune`.

        Requests with the same budget are pruned together; where the budget covers everything nothing is scored.

        Args:
            texts: (T, D) for each request, the embeddings of all its text, that before the image first.

        Raises:
            InputError: similarity that is not finite, a pruner that breaks its promise, or fewer tokens than crops
                where each crop has a budget of its own.
        """
        kept = [Kept.everything(request.image) for request in requests]
        budgets: dict[int, list[int]] = {}
        for number, request in enumerate(requests):
            keep = request.settings(run).pruned_to(request.image.visual)
            if keep is not None:
                budgets.setdefault(keep, []).append(number)
        for keep, numbers in budgets.items():
            some, their_texts = [requests[i] for i in numbers], [texts[i] for i in numbers]
            selection = self._select(some, their_texts, keep, run, watch)
            for place, number in enumerate(numbers):
                kept[number] = Kept.chosen(requests[number].image, selection, place)
        return kept

    @torch.inference_mode()
    def scores(self, request: Request) -> Evidence:
        """Gather saliency and similarity of one request's image, whatever its pruner looked at.

        Raises:
            InputError: similarity that is not finite.
        """
        return self._evidence([request], [self._embed(request)], [0], {"text"})

    def peak_bytes(self) -> int | None:
        """Most memory that tensors took on the accelerators since the last `run` began; `None` on CPUs."""
        tracked = [device for device in self.devices if device.type == "cuda"]
        return sum(torch.cuda.max_memory_allocated(device) for device in tracked) if tracked else None

    def has_room(self) -> bool:
        """Tell whether twice the last run's peak memory fits on every accelerator; always false on a CPU."""
        tracked = [device for device in self.devices if device.type == "cuda"]
        return bool(tracked) and all(
            2 * torch.cuda.max_memory_allocated(device) < torch.cuda.get_device_properties(device).total_memory
            for device in tracked
        )

    def computes(self) -> bool:
        """Tell whether the accelerators still compute, after an error of theirs; always false on a CPU."""
        accelerators = [device for device in self.devices if device.type not in ("cpu", "meta")]
        try:
            return bool(accelerators) and all(torch.ones(1, device=device).item() for device in accelerators)
        except RuntimeError as error:
            return is_out_of_memory(error)

    def _reset_peak(self) -> None:
        for device in self.devices:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)

    def _embed(self, request: Request) -> Tensor:
        """Embed all text of a prompt, that before the image first: (T, D)."""
        return self.stages.embed(request.prompt.before + request.prompt.after)

    def _room(self, request: Request, run: RunSettings) -> int | None:
        """Count the tokens that may be generated before the context is full; the last one takes no position.

        Raises:
            InputError: the prompt alone is longer.
        """
        if self.context is None:
            return None
        keep, text = request.settings(run).pruned_to(request.image.visual), request.prompt.text_tokens
        visual = len(request.image.packed) if keep is None or run.positions == "original" else keep
        if text + visual > self.context:
            raise InputError(
                f"the prompt takes {text + visual} positions ({visual} visual), the model has {self.context}",
                "ask a shorter question, or keep fewer visual tokens (--keep)",
            )
        return self.context - text - visual + 1

    def _select(
        self, requests: Sequence[Request], texts: Sequence[Tensor], keep: int, run: RunSettings, watch: Stopwatch
    ) -> Selection:
        chosen = pruners.get(run.pruner)
        with watch.span("score"):
            evidence = self._evidence(requests, texts, [request.seed(run.seed) for request in requests], chosen.reads)
        choose = partial(each, chosen) if run.each_crop else chosen
        with watch.span("prune"):
            # Apple's GPUs have no float64, in which the mixture adds up.
            return choose(evidence.on_cpu() if self._home.type == "mps" else evidence, keep)

    def _evidence(
        self, requests: Sequence[Request], texts: Sequence[Tensor], seeds: Sequence[int], reads: Collection[str]
    ) -> Evidence:
        """Gather what a pruner that reads `reads` may look at; `texts` are of `_embed`."""
        evidence = gather_evidence(
            [request.image for request in requests],
            [text[len(request.prompt.before) :] for request, text in zip(requests, texts, strict=True)],
            [request.prompt.question_span for request in requests],
            seeds,
            reads,
        )
        if evidence.similarity.numel():
            check_scores("similarity", evidence.similarity)
        return evidence


def _spliced(request: Request, text: Tensor, kept: Kept, room: int | None, run: RunSettings) -> Spliced:
    """Splice the prompt as the language model takes it; `text` is of `Pipeline._embed`."""
    before, original = len(request.prompt.before), run.positions == "original"
    spliced = splice(text[:before], kept.tokens, text[before:], kept.places, len(request.image.packed), original)
    return replace(spliced, seed=request.seed(run.seed), room=room, strikes=request.strikes)
