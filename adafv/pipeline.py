"""The stages on tensors: encode image -> score -> prune -> splice -> prefill -> decode. Knows no records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor

from adafv import pruners
from adafv.decoding import Decoded, Spliced, generate, splice
from adafv.errors import InputError, OutOfMemoryError
from adafv.evidence import Evidence, Selection, check_scores
from adafv.families.geometry import Frame
from adafv.families.llava import ImageEncoding, LlavaStages, Pixels
from adafv.families.llava_next import LlavaNextStages
from adafv.loading.checkpoint import Checkpoint
from adafv.loading.devices import execution_device
from adafv.prompt import Prompt
from adafv.settings import RunSettings
from adafv.signals.gathering import Query, gather_evidence
from adafv.timing import Stopwatch

_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_STAGES = {"llava": LlavaStages, "vipllava": LlavaStages, "llava_next": LlavaNextStages}


@dataclass(frozen=True)
class Row:
    """One prompt on its way through the stages; `seed` is for pruners that draw, and for tokens that are drawn."""

    prompt: Prompt
    image: ImageEncoding
    seed: int


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
        """The unpruned image."""
        return cls(image.packed, torch.arange(len(image.packed), device=image.packed.device))

    @classmethod
    def chosen(cls, image: ImageEncoding, selection: Selection, row: int) -> Kept:
        """One row of a selection."""
        places = image.candidates[selection.indices[row]]
        masks = (selection.by_saliency, selection.by_similarity)
        return cls(image.packed[places], places, *(None if mask is None else mask[row] for mask in masks))


@dataclass(frozen=True)
class Outcome:
    """What became of one row."""

    kept: Kept
    decoded: Decoded


class Pipeline:
    """The stages of one loaded checkpoint, over batches of prompts."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model
        self._stages = _STAGES[checkpoint.family](checkpoint)
        self._home = execution_device(self.model.get_input_embeddings())
        held = {parameter.device for parameter in self.model.parameters() if parameter.device.type != "meta"}
        self.devices = sorted(held | {self._home}, key=str)

    def preprocess(self, image: Image) -> Pixels:
        """One RGB image to pixels on the CPU; may be called from any thread.

        Raises:
            ImageError: a strip too thin to be resized.
        """
        return self._stages.preprocess(image)

    @torch.inference_mode()
    def encode(self, images: list[Pixels], watch: Stopwatch) -> list[ImageEncoding]:
        """Encode images together; adds to `watch` under `vision`.

        Raises:
            InputError: saliency that is not finite.
            OutOfMemoryError: too many crops at once.
        """
        with watch.span("vision"), _memory_explained():
            encodings = [encoding.to(self._home) for encoding in self._stages.encode(images)]
        for encoding in encodings:
            check_scores("saliency", encoding.saliency)
        return encodings

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], settings: RunSettings, watch: Stopwatch) -> list[Outcome]:
        """Answer B prompts together; adds to `watch` under `score`, `prune`, `prefill` and `decode`.

        Raises:
            InputError: a prompt longer than the model's context, or similarity that is not finite.
            OutOfMemoryError: too many prompts at once.
        """
        self._reset_peak()
        with _memory_explained():
            with watch.span("prefill"):
                texts = [self._stages.embed(row.prompt.before + row.prompt.after) for row in rows]
            kept = self._prune(rows, texts, settings, watch)
            with watch.span("prefill"):
                original = settings.positions == "original"
                prompts = [self._splice(*parts, original) for parts in zip(rows, texts, kept, strict=True)]
            decoded = generate(self.model, prompts, settings, watch)
        return [Outcome(*parts) for parts in zip(kept, decoded, strict=True)]

    @torch.inference_mode()
    def scores(self, row: Row) -> Evidence:
        """Saliency and similarity of one prompt's image, whatever its pruner looked at.

        Raises:
            InputError: similarity that is not finite.
        """
        return self.evidence([row], [self._stages.embed(row.prompt.before + row.prompt.after)], {"text"})

    def frames(self, size: tuple[int, int]) -> list[Frame]:
        """Where the crops of an image of `size` (height, width) lie in it."""
        return self._stages.frames(size)

    @property
    def cell(self) -> tuple[int, int]:
        """The patches of a crop: how many in a row, and pixels along the side of one."""
        return self._stages.side, int(self.model.config.vision_config.patch_size)

    def peak_bytes(self) -> int | None:
        """Most memory that tensors took on the accelerators since the last `run` began; `None` on CPUs."""
        tracked = [device for device in self.devices if device.type == "cuda"]
        return sum(torch.cuda.max_memory_allocated(device) for device in tracked) if tracked else None

    def has_room(self) -> bool:
        """Whether the accelerators would hold twice what the last `run` took; never said of CPUs."""
        tracked = [device for device in self.devices if device.type == "cuda"]
        return bool(tracked) and all(
            2 * torch.cuda.max_memory_allocated(device) < torch.cuda.get_device_properties(device).total_memory
            for device in tracked
        )

    def _reset_peak(self) -> None:
        for device in self.devices:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)

    def _prune(
        self, rows: Sequence[Row], texts: Sequence[Tensor], settings: RunSettings, watch: Stopwatch
    ) -> list[Kept]:
        """Rows with the same budget are pruned together; where the budget covers everything nothing is scored."""
        kept = [Kept.everything(row.image) for row in rows]
        budgets: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            keep = settings.budget.tokens(row.image.visual)
            if settings.pruner != "none" and keep < row.image.visual:
                budgets.setdefault(keep, []).append(number)
        for keep, numbers in budgets.items():
            some, their_texts = [rows[i] for i in numbers], [texts[i] for i in numbers]
            selection = self._select(some, their_texts, keep, settings.pruner, watch)
            for place, number in enumerate(numbers):
                kept[number] = Kept.chosen(rows[number].image, selection, place)
        return kept

    def _select(
        self, rows: Sequence[Row], texts: Sequence[Tensor], keep: int, pruner: str, watch: Stopwatch
    ) -> Selection:
        chosen = pruners.get(pruner)
        with watch.span("score"):
            evidence = self.evidence(rows, texts, chosen.reads)
        with watch.span("prune"):
            # Apple's GPUs have no float64, in which the mixture adds up.
            return chosen(evidence.on_cpu() if self._home.type == "mps" else evidence, keep)

    def evidence(self, rows: Sequence[Row], texts: Sequence[Tensor], reads: Collection[str]) -> Evidence:
        """What a pruner may look at.

        Args:
            rows: B prompts.
            texts: (T, D) input embeddings of each, the text before the image included.
            reads: as in `Pruner.reads`.

        Raises:
            InputError: similarity that is not finite.
        """
        found = gather_evidence(
            [
                Query(row.image, text[len(row.prompt.before) :], row.prompt.own, row.seed)
                for row, text in zip(rows, texts, strict=True)
            ],
            reads,
        )
        if found.similarity.numel():
            check_scores("similarity", found.similarity)
        return found

    def _splice(self, row: Row, text: Tensor, kept: Kept, original: bool) -> Spliced:
        before = len(row.prompt.before)
        spliced = splice(text[:before], kept.tokens, text[before:], kept.places, len(row.image.packed), original)
        limit = getattr(self.model.config.text_config, "max_position_embeddings", None)
        visual = len(row.image.packed) if original else len(kept.tokens)  # whose positions the prompt takes up
        if limit is not None and len(text) + visual >= limit:
            raise InputError(
                f"the prompt takes {len(text) + visual} positions ({visual} visual), the model has {limit}",
                "ask a shorter question, or keep fewer visual tokens (--keep)",
            )
        return replace(spliced, seed=row.seed)


@contextmanager
def _memory_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # CPUs and CUDA's libraries raise no class of their own
        said = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in said for sign in _NO_MEMORY):
            raise
        raise OutOfMemoryError(
            f"out of memory: {said.splitlines()[0]}",
            "keep fewer visual tokens (--keep), use smaller batches, --dtype bfloat16 or --quantize int4",
        ) from error
