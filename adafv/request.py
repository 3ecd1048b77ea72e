"""A question about an encoded image, on its way through the stages."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from adafv.encoding import ImageEncoding
from adafv.prompt import Prompt
from adafv.records import Question
from adafv.settings import RunSettings


@dataclass(frozen=True)
class EncodingCost:
    """Seconds that one image took; of images encoded together, `vision_s` is this one's share.

    `crops` numbers those of its crops that this is the cost of; `None` where it is that of all.
    """

    preprocess_s: float
    vision_s: float
    crops: tuple[int, ...] | None = None


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
        known: prompts of all questions that are known about the image, this one's among them, where they choose
            together (`RunSettings.select`).
        looked_s: seconds that it took to tell from the thumbnail which tiles it wants; `None` where nobody looked.
    """

    question: Question
    prompt: Prompt
    image: ImageEncoding
    cost: EncodingCost | None = None
    image_key: str | None = None
    strikes: int = 0
    known: tuple[Prompt, ...] = ()
    looked_s: float | None = None

    @property
    def asked(self) -> tuple[Prompt, ...]:
        """The prompts that tokens are chosen for together: of all known questions, or its own alone."""
        return self.known if len(self.known) > 1 else (self.prompt,)

    @property
    def spans(self) -> tuple[int, ...]:
        """First and end of each question's own tokens in the text behind the image, of all `asked` in a row."""
        found: list[int] = []
        start = 0
        for prompt in self.asked:
            (first, end), length = prompt.question_span, len(prompt.after)
            found += [start + first, start + end] if first < end else [start, start + length]
            start += length
        return tuple(found)

    @property
    def own(self) -> slice:
        """Where its own text is in that of all `asked`."""
        place = self.asked.index(self.prompt)
        start = sum(len(prompt.after) for prompt in self.asked[:place])
        return slice(start, start + len(self.prompt.after))

    def settings(self, run: RunSettings) -> RunSettings:
        """Tell how this request is answered within a run: its question's own budget wins."""
        return run.keeping(self.question.keep)

    def seed(self, seed: int) -> int:
        """Seed whatever is drawn for this request: by the question's own id, not by its place in a batch.

        Args:
            seed: of the run.
        """
        return _drawn([seed, self.question.question_id])

    def choice_seed(self, seed: int) -> int:
        """Seed a pruner that draws: as `seed`, but by all questions' texts where they choose together."""
        texts = [prompt.text for prompt in self.asked]
        return self.seed(seed) if len(texts) == 1 else _drawn([seed, texts])


def _drawn(content: list[Any]) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(content).encode()).digest()[:7], "big")
