"""The tokens that match the question's words best, whatever their saliency."""

from __future__ import annotations

from adafv.evidence import Evidence, Selection
from adafv.pruners import Pruner
from adafv.signals.ranking import ranking


def select(evidence: Evidence, keep: int) -> Selection:
    """Keep the top `keep` by text-to-image similarity: (B, keep) indices."""
    return Selection(ranking(evidence.relevance, evidence.valid, keep).sort(dim=1).values)


PRUNER = Pruner(select, reads=frozenset({"text"}))
