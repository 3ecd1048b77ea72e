"""What one answer cost: tokens, FLOPs and key/value cache, next to what the unpruned model would have cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adafv import flops, pruners
from adafv.llava import ImageEncoding
from adafv.pipeline import Outcome
from adafv.prompt import Prompt
from adafv.records import Flops, MemoryBytes, TokenCounts
from adafv.settings import RunSettings


@dataclass(frozen=True)
class Accountant:
    """Counts for one checkpoint, loaded or only planned with."""

    vision: flops.VisionGeometry
    text: flops.TextGeometry
    bytes_per_value: int

    @classmethod
    def of(cls, config: Any, vision_layers: int, bytes_per_value: int) -> Accountant:
        """From a LLaVA config; `vision_layers` of the tower's layers run."""
        vision = flops.VisionGeometry.from_config(config, vision_layers)
        return cls(vision, flops.TextGeometry.from_config(config), bytes_per_value)

    def costs(self, *, crops: int, scored: int, visual: int, fed: int, unpruned: int, generated: int) -> Flops:
        """FLOPs of one answer on its own, without a batch's padding.

        Args:
            crops: that were encoded for it.
            scored: text tokens that were compared with the image, 0 where the pruner looks at none.
            visual: candidates of the image.
            fed: tokens of the prompt, text and kept visual ones.
            unpruned: tokens of the unpruned prompt.
            generated: tokens of the answer.
        """

        def language(tokens: int) -> tuple[int, int]:
            return flops.prefill(self.text, tokens), flops.decode(self.text, tokens, generated)

        vision = flops.vision(self.vision, crops)
        projector = flops.projector(self.vision, crops * self.vision.patches)
        score = flops.score(scored, visual, self.text.hidden)
        prefill, decode = language(fed)
        return Flops(
            vision=vision,
            projector=projector,
            score=score,
            prefill=prefill,
            decode=decode,
            total=vision + projector + score + prefill + decode,
            unpruned_total=vision + projector + sum(language(unpruned)),
        )

    def caches(self, *, fed: int, unpruned: int, generated: int, peak: int | None) -> MemoryBytes:
        """Key/value cache at the end of an answer; arguments as of `costs`, `peak` is the device's."""
        cache, without = (
            flops.kv_cache_bytes(self.text, flops.cached_positions(tokens, generated), self.bytes_per_value)
            for tokens in (fed, unpruned)
        )
        return MemoryBytes(cache, without, peak)

    def tokens(self, prompt: Prompt, image: ImageEncoding, outcome: Outcome) -> TokenCounts:
        """Visual tokens by the signal that chose them, text and generated tokens. Synchronises."""
        kept = outcome.kept
        split: tuple[int, int, int] | None = None
        if kept.by_saliency is not None and kept.by_similarity is not None:
            both = kept.by_saliency & kept.by_similarity
            split = (int(kept.by_saliency.sum()), int(kept.by_similarity.sum()), int(both.sum()))
        newlines = image.newlines if len(kept.tokens) > image.visual else 0
        by_saliency, by_similarity, by_both = split or (None, None, None)
        return TokenCounts(
            visual=image.visual,
            kept=len(kept.tokens) - newlines,
            from_saliency=by_saliency,
            from_similarity=by_similarity,
            from_both=by_both,
            text=prompt.text_tokens,
            generated=len(outcome.decoded.ids),
            crops=image.crops,
            newlines=newlines,
        )

    def flops(self, prompt: Prompt, image: ImageEncoding, outcome: Outcome, run: RunSettings, *, fresh: bool) -> Flops:
        """FLOPs of an answer that was given.

        `fresh` says whether vision was run for this answer; if another one's was shared, neither side is charged
        for it, so that `unpruned_total` differs by the pruning alone.
        """
        pruned = len(outcome.kept.tokens) < image.visual
        return self.costs(
            crops=image.crops if fresh else 0,
            scored=len(prompt.after) if pruned and pruners.looks_at_text(run.pruner) else 0,
            visual=image.visual,
            fed=prompt.text_tokens + len(outcome.kept.tokens),
            unpruned=prompt.text_tokens + len(image.packed),
            generated=len(outcome.decoded.ids),
        )

    def memory(self, prompt: Prompt, image: ImageEncoding, outcome: Outcome, peak: int | None) -> MemoryBytes:
        """Key/value cache of an answer that was given."""
        return self.caches(
            fed=prompt.text_tokens + len(outcome.kept.tokens),
            unpruned=prompt.text_tokens + len(image.packed),
            generated=len(outcome.decoded.ids),
            peak=peak,
        )
