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

    Raises:
        BudgetError: `keep` is no budget.
    """

    question_id: QuestionId
    image: Any
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    image_name: str | None = None
    keep: Budget | str | int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            object.__setattr__(self, "keep", Budget.parse(self.keep))

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
class TokenCounts:
    """Tokens of one prompt and its answer.

    `kept = from_saliency + from_similarity - from_both`; the last three are `None` where a pruner has no
    such split. `text` counts everything that is not visual; `newlines` the row-end embeddings
    (LLaVA-NeXT, LLaVA-OneVision) that are fed only when nothing is pruned; `merged` the visual tokens that are not kept
    but went into the mean of one that is.
    """

    visual: int
    kept: int
    from_saliency: int | None
    from_similarity: int | None
    from_both: int | None
    text: int
    generated: int
    crops: int
    newlines: int = 0
    merged: int = 0

    @property
    def fed(self) -> int:
        """Tokens of the prompt as the language model took it."""
        return self.text + self.kept + self.newlines


@dataclass(frozen=True)
class Latency:
    """Wall-clock seconds between device synchronisations.

    `vision` covers tower and projector, `score` the text-to-image similarity, `prune` the selection,
    `prefill` splicing and the first forward of the language model. `ttft` (time to first token) is
    vision + score + prune + prefill, so it starts when the pixels are ready. `decode` is the time of all later
    tokens, `tpot` (time per output token) that of one of them, `None` if there was none. `total` includes
    `preprocess`. An image's encoding is charged to the first question about it. In a batch, every answer carries the
    whole batch's stage times.

    Of an answer that a server made, `prefill`, `ttft`, `decode` and `tpot` are `None`: its queue would be in them.
    `server` then is the time from splicing the prompt until its answer was back, and is part of `total`.
    """

    preprocess: float
    vision: float
    score: float
    prune: float
    prefill: float | None
    ttft: float | None
    decode: float | None
    tpot: float | None
    total: float
    server: float | None = None

    @classmethod
    def of(cls, stages: Mapping[str, float], preprocess: float, generated: int) -> Latency:
        """Add up the stages of a batch.

        Args:
            stages: seconds of `vision`, `score`, `prune`, `prefill` and `decode`; one that is missing took none.
            preprocess: seconds, each question's own.
            generated: tokens of the batch's longest answer.
        """
        vision, score, prune, prefill, decode = (
            stages.get(name, 0.0) for name in ("vision", "score", "prune", "prefill", "decode")
        )
        ttft = vision + score + prune + prefill
        tpot = decode / (generated - 1) if generated > 1 else None
        return cls(preprocess, vision, score, prune, prefill, ttft, decode, tpot, preprocess + ttft + decode)

    @classmethod
    def served(cls, stages: Mapping[str, float], preprocess: float, server: float) -> Latency:
        """Add up the stages of a batch whose prompts went to a server, for one of its answers; as `of`."""
        vision, score, prune = (stages.get(name, 0.0) for name in ("vision", "score", "prune"))
        total = preprocess + vision + score + prune + server
        return cls(preprocess, vision, score, prune, None, None, None, None, total, server)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, two per multiply-accumulate, matrix products and attention only.

    `unpruned_total` is what the same engine would have spent on the same answer with every visual token. What several
    questions of a batch share is charged to the first of them, on both sides: an image's encoding, a choice of tokens
    that goes by the image alone, and the prefill of what their prompts begin with; the others' `prefill` is the rest.
    """

    vision: int
    projector: int
    score: int
    prefill: int
    decode: int
    total: int
    unpruned_total: int


@dataclass(frozen=True)
class MemoryBytes:
    """Key/value cache at the end of the answer; `peak` is the device's, `None` where it is not tracked."""

    kv_cache: int
    unpruned_kv_cache: int
    peak: int | None


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
        key += [self.positions] if self.positions else []
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:22]

    def to_json(self) -> dict[str, Any]:
        """Make a JSON object in the documented key order."""
        out = {name: getattr(self, name) for name in ("question_id", "prompt", "text", "answer_id", "model_id")}
        out |= {"metadata": dict(self.metadata), "image": _plain(self.image)}
        out |= {name: getattr(self, name) for name in ("finish_reason", "pruner", "keep")}
        out |= {"positions": self.positions} if self.positions else {}
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
