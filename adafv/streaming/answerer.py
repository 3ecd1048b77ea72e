"""What a stream needs of a model, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from adafv.errors import AdaFVError
from adafv.pipeline import Pipeline
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.request import Request
from adafv.settings import RunSettings


@dataclass
class StreamStats:
    """Counters, live.

    Args:
        images_encoded: that went through the vision tower.
        encodings_read: images whose encoding came from disk instead; of images that are encoded in part, crops.
        encodings_bytes: that were written to disk.
        cache_hits: questions whose image had been encoded before.
        batch_size: as it is now.
    """

    images_encoded: int = 0
    encodings_read: int = 0
    encodings_bytes: int = 0
    cache_hits: int = 0
    batch_size: int = 0


@dataclass(frozen=True)
class Suspect:
    """A question that a server had when it died, `strikes` times so far: perhaps the one that it died of."""

    question: Question
    run: RunSettings
    strikes: int


class Pending(Protocol):
    """What a model gives for a request whose answer may come later."""

    @property
    def decoded(self) -> Future[Any]:
        """Done when there is an answer, or an error."""

    def answer(self) -> Answer:
        """Make the answer, or raise the error."""


class Answerer(Protocol):
    """What a stream needs of a model."""

    pipeline: Pipeline

    def render(self, question: Question, run: RunSettings) -> Prompt:
        """Make the prompt of a question."""

    def begin(self, requests: Sequence[Request], run: RunSettings) -> Sequence[Pending]:
        """Take a batch; where the decoder has no `requests`, it is answered then."""

    def vision_fingerprint(self) -> str:
        """Digest all that an encoding depends on but the image."""

    def failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        """Make the answer of a question that cannot be answered."""
