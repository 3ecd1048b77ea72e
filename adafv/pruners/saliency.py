"""The most salient tokens (FasterVLM, arXiv 2412.01818), with the same fair share for each crop as in AdaFV.

Where the released code differs: it takes K / crops of each crop (`--crop-budget each`), where here a crop that gives
fewer leaves the rest to the others; attention is float32 here, whatever the model's precision.
"""

from __future__ import annotations

from adafv.evidence import Evidence, Selection
from adafv.pruners import Pruner
from adafv.signals.ranking import saliency_ranking


def select(evidence: Evidence, keep: int) -> Selection:
    """Keep the top `keep` by attention of [CLS], or received where there is none: (B, keep) indices."""
    return Selection(saliency_ranking(evidence, keep).sort(dim=1).values)


PRUNER = Pruner(select)
