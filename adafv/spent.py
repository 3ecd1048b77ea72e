"""What an answer took: tokens, seconds, floating-point operations and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one prompt and its answer.

    `kept = from_saliency + from_similarity - from_both`; the last three are `None` where a pruner has no
    such split. `text` counts everything that is not visual; `newlines` the row-end embeddings
    (LLaVA-NeXT, LLaVA-OneVision) that are fed only when nothing is pruned; `merged` the visual tokens that are not kept
    but went into the mean of one that is. Of `crops - 1` tiles, `tiles` were looked at
    (`None` in an older version's answers); `visual` counts the tokens of all.
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
    tiles: int | None = None

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
    that is made for all of them, and the prefill of what their prompts begin with; the others' `prefill` is the rest.
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
