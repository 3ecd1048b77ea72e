"""Probes a loaded checkpoint: how well do its words point at its visual tokens?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adafv.pipeline import Pipeline
from adafv.request import Request
from adafv.signals.alignment import Alignment, alignment
from adafv.words import words_of

QUESTION = (
    "Is there a person, a car, a tree, a house, a dog, a cat, a sign, a bird, a flower, a boat, a chair, a table,"
    " a cup, a ball, the sky or a road?"
)
"""What an image is probed with by default: common things, of which one is mostly there."""


@dataclass(frozen=True)
class Probe:
    """What was found in one image: the best word, and how it matches the visual tokens."""

    word: str
    alignment: Alignment

    def to_json(self) -> dict[str, Any]:
        """Make an object with six digits."""
        found = self.alignment
        numbers = {"peak": found.peak, "spread": found.spread, "chance": found.chance, "signal": found.signal}
        return {"word": self.word} | {name: round(value, 6) for name, value in numbers.items()}


def probe(pipeline: Pipeline, tokenizer: Any, request: Request) -> Probe:
    """Measure how a question's words match the visual tokens of an image.

    Raises:
        InputError: similarity that is not finite.
    """
    scores = pipeline.scores(request)
    found = alignment(scores.cosine[0], scores.question_mask[0], request.image.tokens.shape[-1])
    words, owners = words_of(tokenizer, request.prompt.after)
    return Probe(words[owners[found.word]], found)
