"""The most salient tokens, and means of the others (VisionZip, arXiv 2412.04467), a merger.

Dominant tokens: the top 27/32 of K by saliency, as in the paper's 54 of 64, 108 of 128 and 162 of 192, rounded up; with
several crops the same fair share for each crop as in `saliency`. Contextual tokens: of those that are left, in position
order, evenly spaced ones are targets; every other one goes into the target whose key is most like its own by cosine, in
the vision layer whose attention is the saliency, and what is fed is the mean of a target and all that go into it.

2 R C' FLOPs for each contextual token, with R tokens that are not dominant. Towers without [CLS] (SigLIP) have the
attention that a patch receives as saliency, as in the paper. Below a K of 7 nothing is contextual.

Where the released code differs: it merges in front of the projector, and adds the mean of what goes into a target to
the target, which is then about twice as long; here it is one mean, of projected tokens. It keeps [CLS] as one of the
dominant tokens, feeds the contextual ones behind all others and not in their places, chooses within each crop on its
own (`--crop-budget each`), and works in the model's half precision where this is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adafv import flops
from adafv.evidence import Evidence, Selection, compress
from adafv.pruners import Pruner, Work
from adafv.signals.ranking import saliency_ranking
from adafv.signals.similarity import padded_unit_rows


def contextual_of(keep: int) -> int:
    """Count the contextual tokens among `keep`: 10 of 64, 20 of 128, 30 of 192."""
    return 5 * keep // 32


def select(evidence: Evidence, keep: int) -> Selection:
    """Keep dominant tokens and targets, and merge the others into these. No host synchronisation."""
    contextual = contextual_of(keep)
    dominant = saliency_ranking(evidence, keep - contextual)
    if not contextual:
        return Selection(dominant.sort(dim=1).values)
    into = torch.full_like(evidence.crop, -1).scatter_(1, dominant, dominant)
    rest, targets = evidence.valid & (into < 0), []
    for row, left, keys, length in zip(into, rest, evidence.keys, evidence.lengths, strict=True):
        places = compress(left, length - dominant.shape[1])
        aims = places[:: max(1, len(places) // contextual)][:contextual]
        row[places] = aims[_nearest(keys[places], keys[aims])]
        row[aims] = aims
        targets.append(aims)
    return Selection(torch.cat([dominant, torch.stack(targets)], dim=1).sort(dim=1).values, into=into)


def _nearest(keys: Tensor, targets: Tensor) -> Tensor:
    """Find for each of the (R, C') keys the target that it is most like, of equals the first: (R,)."""
    cosine = padded_unit_rows(keys) @ padded_unit_rows(targets).T
    return cosine[: len(keys), : len(targets)].argmax(dim=1)


def _flops(work: Work) -> int:
    contextual = contextual_of(work.keep)
    if not contextual:
        return 0
    others = work.visual - work.keep + contextual
    return 2 * others * contextual * work.keys + flops.merge(work.visual, work.hidden)


PRUNER = Pruner(select, reads=frozenset({"keys"}), flops=_flops, by_image=True)
