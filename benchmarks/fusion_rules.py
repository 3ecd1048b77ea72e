"""Training-free rules that were tried on the way to a better AdaFV: `(Evidence, keep) -> Selection`, one image size.

Written for reading, not for speed: no padding, and the CPU only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from fusion_parts import between_0_and_1, complete, cosines, greedy, in_turn, kept, marked, spanning, split
from torch import Tensor
from torch.nn.functional import normalize

from adafv.evidence import Evidence, Selection
from adafv.pruners.mixture import mixture

Rule = Callable[[Evidence, int], Selection]


def then_far(share: float, evidence: Evidence, keep: int) -> Selection:
    """AdaFV on a share of the budget, then max-min distance from those."""
    first = mixture(evidence, max(1, int(share * keep))).indices
    taken = torch.zeros_like(evidence.valid).scatter_(1, first, True)
    distance = 1 - cosines(evidence.tokens)
    return kept(complete(taken, torch.ones_like(evidence.saliency), distance, 1.0, keep), keep)


def fresh(salient: float, similar: float, on: str, evidence: Evidence, keep: int) -> Selection:
    """AdaFV over rankings of what is new: score times (distance to those taken) ** power, for either signal.

    Tokens that both lists name leave places, which saliency fills.
    """
    distance = 1 - cosines(getattr(evidence, on))
    by_saliency, gained = greedy(evidence.saliency, distance, salient, keep)
    by_similarity, matched = greedy(evidence.relevance, distance, similar, keep)
    first, second = split(gained, matched, keep)
    visual = evidence.saliency.shape[1]
    taken = marked(by_saliency, first, visual) | marked(by_similarity, second, visual)
    return kept(complete(taken, evidence.saliency, distance, salient, keep), keep)


def words_first(salient: float, similar: float, on: str, evidence: Evidence, keep: int) -> Selection:
    """The same split; similarity takes its part first, saliency then looks for what is far from that."""
    distance = 1 - cosines(getattr(evidence, on))
    gained = greedy(evidence.saliency, distance, salient, keep)[1]
    by_similarity, matched = greedy(evidence.relevance, distance, similar, keep)
    taken = marked(by_similarity, split(gained, matched, keep)[1], evidence.saliency.shape[1])
    return kept(complete(taken, evidence.saliency, distance, salient, keep), keep)


def covering(image: Tensor, text: Tensor, combine: Callable[[Tensor, Tensor], Tensor], keep: int) -> Selection:
    """Greedy by `combine` of what is covered of the image's rows and of the text's rows, (B, R, N) each."""
    rows = torch.arange(len(image))
    taken = torch.zeros_like(image[:, 0], dtype=torch.bool)
    seen, said = torch.zeros_like(image[..., 0]), torch.zeros_like(text[..., 0])
    for _ in range(keep):
        of_image = torch.maximum(image, seen[..., None]).sum(dim=1)
        of_text = torch.maximum(text, said[..., None]).sum(dim=1)
        best = combine(of_image, of_text).masked_fill(taken, -torch.inf).argmax(dim=1)
        taken[rows, best] = True
        seen, said = torch.maximum(seen, image[rows, :, best]), torch.maximum(said, text[rows, :, best])
    return kept(taken, keep)


def salient_rows(evidence: Evidence, soft: bool) -> Tensor:
    """How well each candidate covers each other one, weighted by the saliency of the covered."""
    cosine, weight = cosines(evidence.features), normalize(evidence.saliency, p=1, dim=1)[..., None]
    return ((cosine / 0.2).softmax(-1) if soft else cosine.clamp(min=0)) * weight


def text_rows(evidence: Evidence) -> Tensor:
    """MMTok's, of the question's own tokens."""
    rows = (evidence.cosine / 0.02).softmax(-1) * evidence.question_mask[..., None]
    return rows / evidence.question_mask.sum(dim=1)[:, None, None]


def product(soft: bool, evidence: Evidence, keep: int) -> Selection:
    """The geometric mean of saliency-weighted coverage and text coverage, greedily."""

    def both(image: Tensor, text: Tensor) -> Tensor:
        return (image + 1e-6).log() + (text + 1e-6).log()

    return covering(salient_rows(evidence, soft), text_rows(evidence), both, keep)


def salient_mmtok(evidence: Evidence, keep: int) -> Selection:
    """MMTok whose image rows are weighted by saliency."""

    def total(image: Tensor, text: Tensor) -> Tensor:
        return text + 0.5 * image

    return covering(salient_rows(evidence, soft=True), text_rows(evidence), total, keep)


def one_dpp(weight: float | None, on: str, evidence: Evidence, keep: int) -> Selection:
    """CDPruner whose relevance mixes saliency and best cosine: by AdaFV's own split, or by a fixed `weight`."""
    order = evidence.saliency.sort(dim=1, descending=True), evidence.relevance.sort(dim=1, descending=True)
    share = split(order[0].values[:, :keep], order[1].values[:, :keep], keep)[0][:, None] / keep
    share = share if weight is None else torch.full_like(share, weight)
    relevance = share * between_0_and_1(evidence.saliency)
    relevance = relevance + (1 - share) * between_0_and_1(evidence.cosine.amax(dim=1))
    order = spanning(relevance.square(), cosines(getattr(evidence, on)), keep)[0].long()
    return Selection(order.sort(dim=1).values)


def two_dpps(on: str, evidence: Evidence, keep: int) -> Selection:
    """AdaFV over two DPP rankings, of saliency and of squared best cosine: similarity first, saliency fills."""
    cosine, saliency = cosines(getattr(evidence, on)), evidence.saliency.double()
    _, gained = spanning(saliency, cosine, keep)
    similar, matched = spanning(between_0_and_1(evidence.cosine.amax(dim=1)).square(), cosine, keep)
    count = split(gained, matched, keep)[1]
    order = spanning(saliency, cosine, keep, similar.long(), count)[0].long()
    return Selection(order.sort(dim=1).values)


def two_coverages(soft: bool, evidence: Evidence, keep: int) -> Selection:
    """AdaFV's split over two rankings by coverage, of the salient image and of the text; what both name leaves places.

    Those are filled by what covers the salient image next.
    """
    image = salient_rows(evidence, soft)
    by_image, gained = in_turn(image, keep)
    by_text, matched = in_turn(text_rows(evidence), keep)
    first, second = split(gained, matched, keep)
    visual = image.shape[2]
    taken = marked(by_image, first, visual) | marked(by_text, second, visual)
    rank = torch.zeros(taken.shape).scatter_(1, by_image, torch.arange(keep, 0, -1.0).expand(len(image), -1))
    while int((left := keep - taken.sum(dim=1)).max()):
        best = rank.masked_fill(taken, -1).argmax(dim=1)
        taken[left > 0, best[left > 0]] = True
    return kept(taken, keep)


def merging(rule: Rule, weigh: str, least: float, evidence: Evidence, keep: int) -> Selection:
    """Any rule's choice; each token that it drops goes into the nearest kept one, where that is nearer than `least`.

    Nearest by the cosine of visual tokens. `weigh`: `alike`, every token the same; `salient`, by saliency; `half`, what
    is merged has half of the say together, by cosine.
    """
    chosen = rule(evidence, keep)
    taken = torch.zeros_like(evidence.valid).scatter_(1, chosen.indices, True)
    nearest = cosines(evidence.tokens).masked_fill(~taken[:, None], -1).max(dim=2)
    own = torch.arange(taken.shape[1]).expand_as(taken)
    into = torch.where(taken, own, nearest.indices.masked_fill(nearest.values < least, -1))
    weights = torch.ones_like(evidence.saliency)
    if weigh == "salient":
        weights = evidence.saliency + 1e-6
    if weigh == "half":
        weights = nearest.values.clamp(min=1e-6).masked_fill(taken | (into < 0), 0)
        sums = torch.zeros_like(weights).scatter_add_(1, into.clamp(min=0), weights)
        weights = torch.where(taken, sums.clamp(min=1e-6), weights)
    return replace(chosen, into=into, weights=weights)


DPP = partial(one_dpp, None, "tokens")

RULES: dict[str, Rule] = {
    "adafv on a quarter, then far": partial(then_far, 0.25),
    "adafv on a half, then far": partial(then_far, 0.5),
    "mmtok, salient rows": salient_mmtok,
    "product of coverages, soft": partial(product, True),
    "product of coverages, cosine": partial(product, False),
    **{
        f"fresh s^{salient:g} t^{similar:g} {on}": partial(fresh, salient, similar, on)
        for on in ("features", "tokens")
        for salient, similar in ((0.5, 0.0), (1.0, 0.0), (2.0, 0.0), (1.0, 0.5), (1.0, 1.0), (0.0, 0.5))
    },
    **{
        f"words first s^{salient:g} t^{similar:g} {on}": partial(words_first, salient, similar, on)
        for on in ("features", "tokens")
        for salient, similar in ((1.0, 0.0), (1.0, 0.5), (2.0, 0.5))
    },
    "one DPP, AdaFV's weights, tokens": partial(one_dpp, None, "tokens"),
    "one DPP, AdaFV's weights, features": partial(one_dpp, None, "features"),
    "one DPP, equal weights, tokens": partial(one_dpp, 0.5, "tokens"),
    "two DPPs, tokens": partial(two_dpps, "tokens"),
    "two DPPs, features": partial(two_dpps, "features"),
    "two coverages, soft": partial(two_coverages, True),
    "two coverages, cosine": partial(two_coverages, False),
    **{
        f"{name}, merging{said}": partial(merging, rule, weigh, least)
        for name, rule in (("adafv", mixture), ("one DPP, AdaFV's weights, tokens", DPP))
        for said, weigh, least in (
            ("", "alike", -1.0),
            (" above 0.5", "alike", 0.5),
            (" above 0.8", "alike", 0.8),
            (" by saliency", "salient", -1.0),
            (", half the say", "half", -1.0),
            (" above 0.8, half the say", "half", 0.8),
        )
    },
}
