"""A line of a batch: what it asks, the keys by which it is told apart, and how its answer is written."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adafv.budget import Budget
from adafv.errors import AdaFVError, ImageError
from adafv.records import Answer, Failure, Question, QuestionId
from adafv.settings import RunSettings


@dataclass(frozen=True)
class Line:
    """One line of the input.

    Args:
        number: in the file, from 1, blank lines counted.
        question_id: its own; the line's number where it has none.
        text: the question, as far as it could be read.
        image: the image as it is written in the line.
        source: what to open: a path, or the bytes of a data URI or of a table.
        metadata: what else the line holds.
        keep: its own budget, where it has one.
        failure: why it is no question.
        has_id: whether the id is its own, or is missing from a line that could be read.
    """

    number: int
    question_id: QuestionId
    text: str = ""
    image: str = ""
    source: str | bytes = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    keep: Budget | None = None
    failure: Failure | None = None
    has_id: bool = False

    @property
    def question(self) -> Question:
        """What the library takes."""
        return Question(self.question_id, self.source, self.text, self.metadata, self.image_name, self.keep)

    @property
    def image_name(self) -> str:
        """The image as answers name it: as it is written, but of a data URI only what comes before the data."""
        is_uri = isinstance(self.source, bytes) and self.image[:5].lower() == "data:"
        return self.image.partition(",")[0] if is_uri else self.image

    @property
    def image_key(self) -> int:
        """64 bits, equal for lines about one image as it is written; by number where there is none."""
        return key_of(posixpath.normpath(self.image) if self.image else str(self.number))

    def failed(self, error: AdaFVError) -> Line:
        """Add to a line the reason why it cannot be answered."""
        return replace(self, failure=Failure(type(error).__name__, error.what, error.fix))

    def refused(self, model_id: str, run: RunSettings) -> Answer:
        """Make the answer of a line that is no question."""
        return Answer(
            question_id=self.question_id,
            prompt=self.text,
            text=None,
            model_id=model_id,
            metadata=self.metadata,
            image=self.question.about(None) if self.image else None,
            **run.keeping(self.keep).named,
            error=self.failure,
        )


def key_of(text: str) -> int:
    """Hash a text to 64 bits, the same in every process."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def id_key(question_id: QuestionId, *more: str) -> int:
    """Hash an id to 64 bits: 1 and 1.0 are one number, 1, "1" and true are three ids.

    Args:
        question_id: any JSON scalar.
        more: what else tells answers apart.
    """
    if isinstance(question_id, float) and question_id.is_integer():
        question_id = int(question_id)
    return key_of(json.dumps([question_id, *more]))


def content_key_of(source: str | bytes) -> int | None:
    """Make the key of an image's bytes; `None` where they cannot be read."""
    from adafv.images import content_key

    try:
        return key_of(content_key(source))
    except ImageError:
        return None


def encoded(answer: Answer, *, ascii_only: bool = False) -> str:
    """Write one line without its end: UTF-8 where that is possible, ASCII escapes where it is not."""
    found = answer.to_json()
    line = json.dumps(found, ensure_ascii=ascii_only, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half a surrogate pair in an id or in metadata
        line = json.dumps(found, allow_nan=False)
    return line
