"""A question about an encoded image, on its way through the stages."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from adafv.encoding import ImageEncoding
from adafv.prompt import Prompt
from adafv.records import Question
from adafv.settings import RunSettings


@dataclass(frozen=True)
class EncodingCost:
    """Seconds that one image took; of images encoded together, `vision_s` is this one's share."""

    preprocess_s: float
    vision_s: float


@dataclass(frozen=True)
class Request:
    """A question that is ready for the language model.

    Args:
        question: as it was asked.
        prompt: rendered and tokenized.
        image: encoded; several requests may share it.
        cost: what encoding the image took, for the request that it is charged to; `None` for the others about it.
        image_key: the image's content key.
        strikes: how often a server has died while it was at this question.
    """

    question: Question
    prompt: Prompt
    image: ImageEncoding
    cost: EncodingCost | None = None
    image_key: str | None = None
    strikes: int = 0

    def settings(self, run: RunSettings) -> RunSettings:
        """Tell how this request is answered within a run: its question's own budget wins."""
        return run.keeping(self.question.keep)

    def seed(self, seed: int) -> int:
        """Seed whatever is drawn for this request: by the question's own id, not by its place in a batch.

        Args:
            seed: of the run.
        """
        digest = hashlib.sha256(json.dumps([seed, self.question.question_id]).encode()).digest()
        return int.from_bytes(digest[:7], "big")
