"""What goes in and what comes out: frozen records that read and write JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adafv.budget import Budget
from adafv.notebook import answer_html
from adafv.setup import Setup
from adafv.spent import Flops, Latency, MemoryBytes, TokenCounts

QuestionId = str | int | float | bool | None


@dataclass(frozen=True)
class Question:
    """One question about one image.

    Args:
        question_id: any JSON scalar.
        image: a path, encoded image bytes, or a `PIL.Image.Image`.
        text: the question itself.
        metadata: whatever else its owner wants back with the answer.
        image_name: what the answer calls the image; a path's own text where there is none.
        keep: its own budget, in any form that `Budget.parse` takes, which wins over `RunSettings.keep`.
        known: the texts of all questions that are known about the image, in one order for all of them, this one's
            among them; what `RunSettings.select` is about. None stand for this one's alone.

    Raises:
        BudgetError: `keep` is no budget.
    """

    question_id: QuestionId
    image: Any
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    image_name: str | None = None
    keep: Budget | str | int | None = None
    known: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.keep is not None:
            object.__setattr__(self, "keep", Budget.parse(self.keep))
        known = (self.known,) if isinstance(self.known, str) else tuple(self.known)
        object.__setattr__(self, "known", known)  # a list is welcome, and a text is no list of letters

    def about(self, key: str | None) -> ImageRef:
        """Name the image for an answer.

        Args:
            key: of its content, `None` where it could not be read.
        """
        path = os.fsdecode(self.image) if isinstance(self.image, str | os.PathLike) else None
        return ImageRef(path if self.image_name is None else self.image_name, key)


@dataclass(frozen=True)
class ImageRef:
    """Which image an answer is about.

    `name` is what the question called it, `None` for bytes and images without one. `key` is the SHA-256 of the
    encoded file (of the pixels, for a `PIL.Image.Image`), `None` where it could not be read.
    """

    name: str | None
    key: str | None


@dataclass(frozen=True)
class Failure:
    """Why a question could not be answered."""

    type: str
    message: str
    fix: str


@dataclass(frozen=True)
class Comparison:
    """The same question, unpruned, in the same process and on the same attention kernel."""

    text: str
    agrees: bool
    ttft_s: float
    total_s: float
    speedup_ttft: float
    speedup_total: float

    @classmethod
    def of(cls, text: str | None, latency: Latency, unpruned_text: str | None, unpruned: Latency) -> Comparison:
        """Compare an answer with the unpruned model's answer to the same question, both made here."""
        ttft, unpruned_ttft = latency.ttft or 0.0, unpruned.ttft or 0.0
        return cls(
            text=unpruned_text or "",
            agrees=unpruned_text == text,
            ttft_s=unpruned_ttft,
            total_s=unpruned.total,
            speedup_ttft=unpruned_ttft / ttft if ttft else 1.0,
            speedup_total=unpruned.total / latency.total,
        )


@dataclass(frozen=True)
class Answer:
    """One answer with its report; `text` is `None` exactly when `error` is set.

    The fields `question_id`, `prompt`, `text`, `answer_id`, `model_id` and `metadata` are LLaVA's answer
    format, so that LLaVA's own evaluation scripts read ours.
    """

    question_id: QuestionId
    prompt: str
    text: str | None
    model_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    image: ImageRef | None = None
    finish_reason: str | None = None
    pruner: str | None = None
    keep: str | None = None
    positions: str | None = None
    select: str | None = None
    tokens: TokenCounts | None = None
    latency_s: Latency | None = None
    flops: Flops | None = None
    memory_bytes: MemoryBytes | None = None
    error: Failure | None = None
    compare: Comparison | None = None
    setup: Setup | None = None

    @property
    def latency(self) -> Latency | None:
        """`latency_s`, for those who write Python rather than JSON."""
        return self.latency_s

    @property
    def answer_id(self) -> str:
        """22 characters made from the content, so that equal runs give equal ids."""
        key = [self.question_id, self.prompt, self.text, self.model_id, self.pruner, self.keep]
        key += [named for named in (self.positions, self.select) if named]
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:22]

    def to_json(self) -> dict[str, Any]:
        """Make a JSON object in the documented key order."""
        out = {name: getattr(self, name) for name in ("question_id", "prompt", "text", "answer_id", "model_id")}
        out |= {"metadata": dict(self.metadata), "image": _plain(self.image)}
        out |= {name: getattr(self, name) for name in ("finish_reason", "pruner", "keep")}
        out |= {name: value for name in ("positions", "select") if (value := getattr(self, name))}
        for name in ("tokens", "latency_s", "flops", "memory_bytes", "error"):
            out[name] = _plain(getattr(self, name))
        for name in ("compare", "setup"):
            if getattr(self, name) is not None:
                out[name] = _plain(getattr(self, name))
        return out

    def _repr_html_(self) -> str:
        """Show itself in a notebook."""
        return answer_html(self)


def _plain(record: Any) -> dict[str, Any] | None:
    """Turn a record into JSON; seconds to the microsecond, beyond which clocks say nothing."""
    if record is None:
        return None
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(record).items()}
