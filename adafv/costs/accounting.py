"""What one answer cost: tokens, FLOPs and key/value cache, next to what the unpruned model would have cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adafv import pruners
from adafv.costs import flops
from adafv.families.llava import ImageEncoding
from adafv.pipeline import Outcome
from adafv.prompt import Prompt
from adafv.pruners import Work
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

    def costs(self, *, crops: int, score: int, fed: int, unpruned: int, generated: int) -> Flops:
        """FLOPs of one answer on its own, without a batch's padding.

        Args:
            crops: that were encoded for it.
            score: of scoring and choosing, as `selection` counts it.
            fed: tokens of the prompt, text and kept visual ones.
            unpruned: tokens of the unpruned prompt.
            generated: tokens of the answer.
        """

        def language(tokens: int) -> tuple[int, int]:
            return flops.prefill(self.text, tokens), flops.decode(self.text, tokens, generated)

        vision = flops.vision(self.vision, crops)
        projector = flops.projector(self.vision, crops * self.vision.patches)
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

    def selection(self, pruner: str, *, keep: int, visual: int, text: int, own: int) -> int:
        """FLOPs of scoring and choosing `keep` of `visual` tokens; nothing where there is nothing to choose.

        `text` is the tokens behind the image, of which the question's own are `own`.
        """
        if keep >= visual:
            return 0
        chosen = pruners.get(pruner)
        work = Work(visual, keep, own, self.text.hidden, self.vision.projector_in)
        scored = text if "text" in chosen.reads else 0
        return flops.score(scored, visual, self.text.hidden) + chosen.flops(work)

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
        first, end = prompt.own
        keep, text = len(outcome.kept.tokens), len(prompt.after)
        return self.costs(
            crops=image.crops if fresh else 0,
            score=self.selection(run.pruner, keep=keep, visual=image.visual, text=text, own=end - first),
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
