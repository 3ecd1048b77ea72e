"""Everything is dropped: what the language model answers without the image, which is no way to prune but a floor."""

from __future__ import annotations

import torch

from adafv.evidence import Evidence, Selection
from adafv.pruners import Pruner


def select(evidence: Evidence, keep: int) -> Selection:
    """Keep nothing: (B, 0) indices."""
    device = evidence.saliency.device
    return Selection(torch.empty(len(evidence.seeds), 0, dtype=torch.long, device=device))


PRUNER = Pruner(select, by_image=True)
