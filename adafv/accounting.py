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
    """Counts for one loaded checkpoint."""

    vision: flops.VisionGeometry
    text: flops.TextGeometry
    bytes_per_value: int

    @classmethod
    def of(cls, config: Any, bytes_per_value: int) -> Accountant:
        """From the config of the loaded model, whose vision tower is already cut to the layers that run."""
        return cls(
            flops.VisionGeometry.from_config(config, config.vision_config.num_hidden_layers),
            flops.TextGeometry.from_config(config),
            bytes_per_value,
        )

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
        """FLOPs of one answer on its own, without a batch's padding.

        `fresh` says whether vision was run for this answer; if another one's was shared, neither side is charged
        for it, so that `unpruned_total` differs by the pruning alone.
        """
        crops = image.crops if fresh else 0
        kept, generated = len(outcome.kept.tokens), len(outcome.decoded.ids)
        pruned = kept < image.visual
        scored = len(prompt.after) if pruned and pruners.looks_at_text(run.pruner) else 0
        vision = flops.vision(self.vision, crops)
        projector = flops.projector(self.vision, crops * self.vision.patches)
        score = flops.score(scored, image.visual, self.text.hidden)
        prefill, decode = self._language(prompt.text_tokens + kept, generated)
        return Flops(
            vision=vision,
            projector=projector,
            score=score,
            prefill=prefill,
            decode=decode,
            total=vision + projector + score + prefill + decode,
            unpruned_total=vision + projector + sum(self._language(prompt.text_tokens + len(image.packed), generated)),
        )

    def _language(self, tokens: int, generated: int) -> tuple[int, int]:
        return flops.prefill(self.text, tokens), flops.decode(self.text, tokens, generated)

    def memory(self, prompt: Prompt, image: ImageEncoding, outcome: Outcome, peak: int | None) -> MemoryBytes:
        """Key/value cache at the end of the answer; `peak` is the device's."""

        def cache(visual: int) -> int:
            positions = flops.cached_positions(prompt.text_tokens + visual, len(outcome.decoded.ids))
            return flops.kv_cache_bytes(self.text, positions, self.bytes_per_value)

        return MemoryBytes(cache(len(outcome.kept.tokens)), cache(len(image.packed)), peak)
