"""The most salient tokens (FasterVLM, arXiv 2412.01818), with the same fair share for each crop as in AdaFV.

On one crop the released code keeps the same tokens, but for attention in the model's half precision, which is float32
here; the share for each crop is AdaFV's.
"""

from __future__ import annotations

from adafv.evidence import Evidence, Selection
from adafv.pruners import Pruner
from adafv.signals.ranking import saliency_ranking


def select(evidence: Evidence, keep: int) -> Selection:
    """Keep the top `keep` by attention of [CLS], or received where there is none: (B, keep) indices."""
    return Selection(saliency_ranking(evidence, keep).sort(dim=1).values)


PRUNER = Pruner(select, by_image=True)
