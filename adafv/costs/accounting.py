"""What one answer costs: FLOPs and key/value cache, next to what the unpruned model would have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adafv import flops, pruners
from adafv.families.tower import feature_layers, tower_of
from adafv.pruners import Work
from adafv.pruners.crops import shares
from adafv.settings import RunSettings
from adafv.spent import Flops, MemoryBytes, TokenCounts


@dataclass(frozen=True)
class Accountant:
    """Counts for one checkpoint, loaded or only planned with.

    Args:
        vision: of the tower and the projector.
        text: of the language model.
        bytes_per_value: of the key/value cache.
    """

    vision: flops.VisionGeometry
    text: flops.TextGeometry
    bytes_per_value: int

    @classmethod
    def of(cls, config: Any, vision_layers: int, bytes_per_value: int) -> Accountant:
        """Read a LLaVA config; `vision_layers` of the tower's layers run."""
        prefix, features = tower_of(config).prefix, len(feature_layers(config))
        vision = flops.VisionGeometry.from_config(config, vision_layers, prefix, features)
        return cls(vision, flops.TextGeometry.from_config(config), bytes_per_value)

    def flops(
        self,
        tokens: TokenCounts,
        *,
        packed: int,
        score: int,
        crops: int,
        unpruned_crops: int | None = None,
        shared: int = 0,
        shared_unpruned: int = 0,
    ) -> Flops:
        """Count the FLOPs of one answer on its own, without a batch's padding.

        Args:
            tokens: of prompt and answer.
            packed: tokens of the unpruned image, newlines included.
            score: of scoring and choosing, as `selection` counts it; 0 where nothing was pruned.
            crops: encoded for this answer: 0 where another one's encoding was shared, for which neither side is then
                charged, so that `unpruned_total` differs by the pruning alone.
            unpruned_crops: that would have been encoded with every visual token; as many where that is not said.
            shared, shared_unpruned: tokens at the start of the prompt that were prefilled for another one, and those
                that would have been unpruned; of the rest alone is either side charged then.
        """

        def language(fed: int, cached: int) -> tuple[int, int]:
            return flops.prefill(self.text, fed, cached), flops.decode(self.text, fed, tokens.generated)

        vision, projector = self._encoding(crops)
        unpruned = self._encoding(crops if unpruned_crops is None else unpruned_crops)
        prefill, decode = language(tokens.fed, shared)
        return Flops(
            vision=vision,
            projector=projector,
            score=score,
            prefill=prefill,
            decode=decode,
            total=vision + projector + score + prefill + decode,
            unpruned_total=sum(unpruned) + sum(language(tokens.text + packed, shared_unpruned)),
        )

    def _encoding(self, crops: int) -> tuple[int, int]:
        """Count what vision tower and projector take for `crops` crops."""
        return flops.vision(self.vision, crops), flops.projector(self.vision, crops * self.vision.patches)

    def look(self, text: int) -> int:
        """Count the FLOPs of matching `text` tokens with a thumbnail, which tells the tiles that are wanted."""
        return flops.score(text, self.vision.patches, self.text.hidden)

    def selection(
        self, run: RunSettings, *, keep: int, visual: int, text: int, question: int, crops: Sequence[int] = ()
    ) -> int:
        """Count the FLOPs of scoring `visual` tokens and choosing `keep` of them.

        Args:
            run: its pruner; a budget that is `auto` takes the text's similarity, too, whatever the pruner reads.
            keep, visual: K and N.
            text: tokens behind the image.
            question: those of them that are the question's own.
            crops: candidates of each crop, where each has a budget of its own.

        Raises:
            InputError: fewer tokens than such crops.
        """
        chosen = pruners.get(run.pruner)
        parts = zip(crops, shares(crops, keep), strict=True) if crops else [(visual, keep)]
        works = [
            Work(own, share, question, self.text.hidden, self.vision.projector_in, self.vision.hidden)
            for own, share in parts
            if share < own  # or there is nothing to choose
        ]
        return self.scoring(run, visual=visual, text=text) + sum(map(chosen.flops, works))

    def scoring(self, run: RunSettings, *, visual: int, text: int) -> int:
        """Count the FLOPs of text-to-image similarity, where a run needs it; as `selection`."""
        scored = text if "text" in pruners.get(run.pruner).reads or run.budget.held is not None else 0
        return flops.score(scored, visual, self.text.hidden)

    def memory(self, tokens: TokenCounts, *, packed: int, peak: int | None) -> MemoryBytes:
        """Count the key/value cache at the end of an answer; `packed` as of `flops`, `peak` is the device's."""
        cache, unpruned = (
            flops.kv_cache_bytes(self.text, flops.cached_positions(fed, tokens.generated), self.bytes_per_value)
            for fed in (tokens.fed, tokens.text + packed)
        )
        return MemoryBytes(cache, unpruned, peak)
