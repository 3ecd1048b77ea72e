"""Answers batches of requests about encoded images, each with its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from adafv.chat_templates import SYSTEM_TEXTS, system_name
from adafv.choosing import Kept
from adafv.costs.accounting import Accountant
from adafv.decoding import Decoded
from adafv.encoding import ImageEncoding
from adafv.errors import AdaFVError, InputError
from adafv.families.templates import is_vicuna
from adafv.families.tower import layers_that_run
from adafv.images import open_image
from adafv.loading.checkpoint import Checkpoint
from adafv.loading.fingerprint import vision_fingerprint
from adafv.pipeline import Outcome, Pipeline
from adafv.prompt import Prompt, Prompter
from adafv.records import Answer, Failure, Question
from adafv.report import reported
from adafv.request import EncodingCost, Request
from adafv.settings import RunSettings
from adafv.setup import Setup
from adafv.spent import Latency
from adafv.tiled import Tiled
from adafv.tiles import ALL
from adafv.tiling import Tiling, skips
from adafv.timing import Stopwatch

_REMEMBERED = 128  # images whose questions are not rendered again


@dataclass(frozen=True)
class Pending:
    """Wait for one answer: `decoded` is done when it can be made, or when it cannot."""

    kept: Kept
    decoded: Future[Decoded]
    report: Callable[[Outcome], Answer]

    def answer(self) -> Answer:
        """Make the answer with its report; raises what decoding raised."""
        return self.report(self.outcome())

    def outcome(self) -> Outcome:
        """Tell what became of the request; raises what decoding raised."""
        return Outcome(self.kept, self.decoded.result())


class Answering:
    """What a stream of questions needs of a checkpoint: prompts, encodings, answers with reports."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.model.config
        self._checkpoint = checkpoint
        self.pipeline = Pipeline(checkpoint.model, checkpoint.processor, checkpoint.family)
        self._prompter = checkpoint.prompter
        # Of nothing that has `self`, which would keep the model in memory.
        self._known = lru_cache(_REMEMBERED)(partial(_prompts, checkpoint.prompter))
        self._accountant = Accountant.of(config, layers_that_run(config), checkpoint.model.dtype.itemsize)

    @property
    def model_id(self) -> str:
        """The checkpoint's name, as the user gave it."""
        return self._checkpoint.name

    @property
    def is_served(self) -> bool:
        """Whether the language model is a server's, rather than here."""
        return self.pipeline.decoder.requests > 0

    def render(self, question: Question, run: RunSettings) -> Prompt:
        """Make the prompt of a question.

        Raises:
            InputError: an empty question, or one that the template cannot take.
        """
        return self._prompter.prompt(question.text, self._system(run))

    def check(self, run: RunSettings) -> None:
        """Refuse settings that no question can be answered under with this checkpoint.

        Raises:
            InputError: padding where an image is cut into tiles, or what a server of the language model cannot do.
        """
        if self.is_served and run.positions == "original":
            what = "positions: original: a server numbers the positions of a prompt itself"
            raise InputError(what, "use compact, or leave --server out")
        if self.is_served and run.compare:
            what = "compare: a server's queue is in its times"
            raise InputError(what, "leave --server out, or sweep with it: that compares answers")
        self.setup(run)

    def setup(self, run: RunSettings) -> Setup | None:
        """Tell how questions are asked, where that is not the default; raises as `check`."""
        crops = "each" if run.each_crop else "joint"
        padded = self.pipeline.stages.padded(run.pad, run.protocol)
        tiles = str(run.tiles) if skips(self.pipeline, [run]) else ALL
        found = Setup(run.protocol, padded, system_name(self._system(run)), crops, tiles)
        return None if found == Setup() else found

    def notes_on(self, run: RunSettings) -> tuple[str, ...]:
        """List what of some settings has no effect with this checkpoint, a sentence each."""
        if run.tiles == ALL or skips(self.pipeline, [run]):
            return ()
        why = "images are one crop" if self.pipeline.stages.pads else "tiles are interpolated, all together"
        return (f"--tiles {run.tiles} has no effect: this checkpoint's {why}",)

    def vision_fingerprint(self) -> str:
        """Digest all that an image's encoding depends on but the image; raises `DeviceError` for offloaded weights."""
        return vision_fingerprint(self._checkpoint.model, self._checkpoint.processor)

    def failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        """Make the answer of a question that cannot be answered."""
        return replace(self._blank(question, run), error=Failure(type(error).__name__, error.what, error.fix))

    def run(self, requests: Sequence[Request], run: RunSettings) -> list[Answer]:
        """Answer a batch of requests, and wait for the answers.

        Raises:
            InputError, OutOfMemoryError: of the whole batch; nothing is answered.
        """
        return [pending.answer() for pending in self.begin(requests, run)]

    def outcomes(self, requests: Sequence[Request], run: RunSettings) -> list[tuple[Answer, Outcome]]:
        """Answer a batch of requests, and tell what became of each; raises as `run`."""
        return [(pending.answer(), pending.outcome()) for pending in self.begin(requests, run)]

    def begin(self, requests: Sequence[Request], run: RunSettings) -> list[Pending]:
        """Hand a batch of requests to the decoder; raises as `run`, but for what goes wrong in decoding one of them."""
        watch = Stopwatch(self.pipeline.devices)
        watch.add("vision", sum(request.cost.vision_s for request in requests if request.cost is not None))
        watch.add("score", sum(request.looked_s or 0.0 for request in requests))
        requests = requests if run.select == "question" else [self._informed(request, run) for request in requests]
        begun = self.pipeline.begin(requests, run, watch)
        longest = 0 if self.is_served else max(len(decoded.result().ids) for _, decoded in begun)
        report = partial(self._report, watch=watch, longest=longest)
        return [
            Pending(kept, decoded, partial(report, request, run=request.settings(run)))
            for request, (kept, decoded) in zip(requests, begun, strict=True)
        ]

    def encode(self, source: Any, run: RunSettings | None = None) -> tuple[ImageEncoding, EncodingCost]:
        """Open and encode one image, padded or not as `run` says, and tell what that took.

        Raises:
            ImageError, OutOfMemoryError: it cannot be.
        """
        watch = Stopwatch(self.pipeline.devices)
        with watch.span("preprocess"):
            pixels = self.pipeline.preprocess(open_image(source), run)
        (encoding,) = self.pipeline.encode([pixels], watch, [] if run is None else [run])
        return encoding, EncodingCost(watch["preprocess"], watch["vision"])

    def _informed(self, request: Request, run: RunSettings) -> Request:
        """Add the prompts of all questions that are known about the image."""
        known, own = request.question.known, request.question.text
        texts = known if not known or own in known else (*known, own)
        return replace(request, known=self._known(texts, self._system(run)))

    def requests(
        self, source: Any, asked: Sequence[tuple[Question, Prompt]], run: RunSettings, key: str | None = None
    ) -> list[Request]:
        """Open one image and encode what questions about it want to see; the first that does is charged.

        Args:
            source: the image.
            asked: questions and their prompts.
            run: how they are asked.
            key: the image's content key.

        Raises:
            ImageError, OutOfMemoryError: it cannot be.
        """
        if not skips(self.pipeline, [run]):
            encoding, cost = self.encode(source, run)
            costs = [cost, *[None] * (len(asked) - 1)]
            return [Request(*one, encoding, paid, key) for one, paid in zip(asked, costs, strict=True)]
        watch = Stopwatch(self.pipeline.devices)
        with watch.span("preprocess"):
            pixels = self.pipeline.preprocess(open_image(source), run)
        tiled = Tiled(key or "", pixels, watch["preprocess"])
        views = [view[run] for view in Tiling(self.pipeline, [run]).views([(tiled, one, [run]) for _, one in asked])]
        return [
            Request(*one, view.image, tiled.charge(run, view.image.numbers), key, looked_s=view.looked_s)
            for one, view in zip(asked, views, strict=True)
        ]

    def _system(self, run: RunSettings) -> str | None:
        if run.system is None and run.protocol is not None and is_vicuna(self._checkpoint.model.config):
            return SYSTEM_TEXTS["vicuna"]
        return run.system

    def _blank(self, question: Question, run: RunSettings) -> Answer:
        return Answer(
            question_id=question.question_id,
            prompt=question.text,
            text=None,
            model_id=self.model_id,
            metadata=question.metadata,
            image=question.about(None),
            **run.keeping(question.keep).named,
            setup=self.setup(run),
        )

    def _report(self, request: Request, outcome: Outcome, run: RunSettings, watch: Stopwatch, longest: int) -> Answer:
        """Report on one request of a batch whose longest answer has `longest` tokens."""
        return reported(
            self._blank(request.question, run),
            request,
            outcome,
            run,
            text=self._checkpoint.processor.tokenizer.decode(outcome.decoded.ids, skip_special_tokens=True).strip(),
            latency=_latency(request, outcome.decoded, watch, longest),
            accountant=self._accountant,
            peak_bytes=None if self.is_served else self.pipeline.peak_bytes(),
        )


def _latency(request: Request, decoded: Decoded, watch: Stopwatch, longest: int) -> Latency:
    preprocess = request.cost.preprocess_s if request.cost is not None else 0.0
    if decoded.server_s is not None:
        return Latency.served(watch.seconds, preprocess, decoded.server_s)
    return Latency.of(watch.seconds, preprocess, longest)


def _prompts(prompter: Prompter, texts: tuple[str, ...], system: str | None) -> tuple[Prompt, ...]:
    """Make the prompts of questions; one that cannot be asked is left out, and each is there once."""
    found = []
    for text in dict.fromkeys(texts):
        with suppress(InputError):
            found.append(prompter.prompt(text, system))
    return tuple(found)
