"""The stages on tensors: encode image -> score -> prune -> splice -> prefill -> decode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from adafv import pruners
from adafv.choosing import Kept, choose, evidence_of
from adafv.decoding import Decoded, Decoder, Spliced, splice
from adafv.encoding import ImageEncoding, Pixels
from adafv.errors import InputError
from adafv.evidence import Evidence, check_scores
from adafv.families.base import Family, ImagePlan
from adafv.families.hooks import execution_device
from adafv.generating import Generating
from adafv.memory import is_out_of_memory, memory_explained
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.timing import Stopwatch


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
        self.home = execution_device(self.model.get_input_embeddings())
        held = {parameter.device for parameter in self.model.parameters() if parameter.device.type != "meta"}
        self.devices = sorted(held | {self.home}, key=str)

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

    def plan(self, pixels: Pixels) -> ImagePlan:
        """Tell how many tokens an image will have, before it is encoded."""
        return self.stages.plan(self.model.config, *pixels.size)

    @torch.inference_mode()
    def encode(self, images: list[Pixels], watch: Stopwatch, runs: Iterable[RunSettings] = ()) -> list[ImageEncoding]:
        """Encode images together; adds to `watch` under `vision`.

        Args:
            images: as preprocessed.
            watch: gets the seconds.
            runs: that they are encoded for; the vision tower's keys are kept where a pruner of theirs reads them.

        Raises:
            InputError: saliency that is not finite.
            OutOfMemoryError: too many crops at once.
        """
        with watch.span("vision"), memory_explained():
            encodings = [encoding.to(self.home) for encoding in self.stages.encode(images, keys=reads_keys(runs))]
        check_scores("saliency", torch.cat([encoding.saliency for encoding in encodings]))
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
        for request in requests:  # before memory is taken for what cannot be answered
            self._room(request, run)
        self._reset_peak()
        with memory_explained():
            with watch.span("prefill"):
                texts = self.embed(requests)
            kept = self.prune(requests, texts, run, watch)
            rooms = [self._room(request, run, one) for request, one in zip(requests, kept, strict=True)]
            with watch.span("prefill"):
                prompts = [_spliced(*parts, run) for parts in zip(requests, texts, kept, rooms, strict=True)]
            return list(zip(kept, self.decoder(prompts, run, watch), strict=True))

    def prune(
        self, requests: Sequence[Request], texts: Sequence[Tensor], run: RunSettings, watch: Stopwatch
    ) -> list[Kept]:
        """Choose the tokens that are kept of B requests' images, as `choosing.choose` does; `texts` are of `embed`."""
        together = {id(request.known): request.asked for request in requests if len(request.asked) > 1}
        words = {key: self.stages.embed([id for one in asked for id in one.after]) for key, asked in together.items()}
        behind = [
            words.get(id(request.known), text[len(request.prompt.before) :])
            for request, text in zip(requests, texts, strict=True)
        ]
        # Apple's GPUs have no float64, in which the mixture adds up.
        return choose(requests, behind, run, watch, on_cpu=self.home.type == "mps")

    @torch.inference_mode()
    def scores(self, request: Request) -> Evidence:
        """Gather saliency and similarity of one request's image, whatever its pruner looked at.

        Raises:
            InputError: similarity that is not finite.
        """
        return evidence_of([request], [self.embed([request])[0][len(request.prompt.before) :]], [0], {"text"})

    def peak_bytes(self) -> int | None:
        """Most memory that tensors took on the accelerators since the last `run` began; `None` on CPUs."""
        tracked = [device for device in self.devices if device.type == "cuda"]
        return sum(torch.cuda.max_memory_allocated(device) for device in tracked) if tracked else None

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

    def embed(self, requests: Sequence[Request]) -> list[Tensor]:
        """Embed all text of each prompt, that before the image first: (T, D) each, looked up at once."""
        texts = [request.prompt.before + request.prompt.after for request in requests]
        return list(torch.split(self.stages.embed(list(chain.from_iterable(texts))), [len(text) for text in texts]))

    def _room(self, request: Request, run: RunSettings, kept: Kept | None = None) -> int | None:
        """Count the tokens that may be generated before the context is full; the last one takes no position.

        Args:
            request, run: what is asked, and how.
            kept: of its image; where that is not known yet, the fewest tokens that it may come to.

        Raises:
            InputError: the prompt alone is longer.
        """
        if self.context is None:
            return None
        image, text = request.image, request.prompt.text_tokens
        keep = request.settings(run).pruned_to(image.visual, whole=image.whole_visual, least=True)
        visual = len(image.packed) if keep is None else keep
        if run.positions == "original":
            visual = image.whole_packed
        if kept is not None and run.positions == "compact":
            visual = len(kept.tokens)
        if text + visual > self.context:
            raise InputError(
                f"the prompt takes {text + visual} positions ({visual} visual), the model has {self.context}",
                "ask a shorter question, or keep fewer visual tokens (--keep)",
            )
        return self.context - text - visual + 1


def reads_keys(runs: Iterable[RunSettings]) -> bool:
    """Tell whether the pruner of any run reads the vision tower's keys, which only then are part of an encoding."""
    return any("keys" in pruners.get(run.pruner).reads for run in runs)


def _spliced(request: Request, text: Tensor, kept: Kept, room: int | None, run: RunSettings) -> Spliced:
    """Splice the prompt as the language model takes it; `text` is of `Pipeline.embed`."""
    before, image, original = len(request.prompt.before), request.image, run.positions == "original"
    places = image.whole_places(kept.places) if original else kept.places
    spliced = splice(text[:before], kept.tokens, text[before:], places, image.whole_packed, original)
    return replace(
        spliced,
        seed=request.seed(run.seed),
        room=room,
        strikes=request.strikes,
        head=before + len(kept.common),
        alike=(tuple(request.prompt.before), id(kept.common)),  # what is kept by one choice is one tensor
    )
