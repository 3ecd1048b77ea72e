"""Chooses the visual tokens that are kept of each request's image: evidence gathered, budget found, pruner asked."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from adafv import pruners
from adafv.encoding import ImageEncoding
from adafv.errors import InputError
from adafv.evidence import Evidence, Selection, check_scores, merge
from adafv.pruners import auto_budget
from adafv.pruners.crops import each
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.signals.gathering import gather_evidence
from adafv.signals.ranking import ranking
from adafv.timing import Stopwatch


@dataclass(frozen=True)
class Counts:
    """Count the tokens that each signal chose, both did, and that were merged into others; `None` of no such split."""

    from_saliency: int | None = None
    from_similarity: int | None = None
    from_both: int | None = None
    merged: int = 0


@dataclass(frozen=True)
class Kept:
    """What is left of one prompt's image.

    Args:
        tokens: (K, D) visual tokens, newlines among them when nothing was pruned.
        places: (K,) their places among the packed tokens.
        by_saliency, by_similarity: (K,) bool, who chose them, where the pruner says so.
        into, shares: (N,) int64 and float32, the candidate that each of the image's goes into, -1 for none, and what
            it is of the mean there; where the pruner merges.
        counts: of the above.
        head: (H, D) the first of `tokens`, where they alone are the same for all questions that chose together.
        pruned: whether anything was left out.
        shared: whether they were chosen for another question about the image, which is charged with it.
    """

    tokens: Tensor
    places: Tensor
    by_saliency: Tensor | None = None
    by_similarity: Tensor | None = None
    into: Tensor | None = None
    shares: Tensor | None = None
    counts: Counts = Counts()
    head: Tensor | None = field(default=None, kw_only=True)
    pruned: bool = field(default=True, kw_only=True)
    shared: bool = field(default=False, kw_only=True)

    @property
    def common(self) -> Tensor:
        """What of `tokens`, from the first, is one tensor for all questions that have the same."""
        return self.tokens if self.head is None else self.head

    @classmethod
    def everything(cls, image: ImageEncoding) -> Kept:
        """Keep the whole image."""
        return cls(image.packed, torch.arange(len(image.packed), device=image.packed.device), pruned=False)

    @classmethod
    def chosen(cls, image: ImageEncoding, selection: Selection, row: int, counts: Counts = Counts()) -> Kept:
        """Keep what one row of a selection says."""
        indices, shares = selection.indices[row], selection.shares(row, image.visual)
        places = image.candidates[indices]
        masks = (selection.by_saliency, selection.by_similarity)
        by_saliency, by_similarity = (None if mask is None else mask[row] for mask in masks)
        kept = cls(image.packed[places], places, by_saliency, by_similarity, counts=counts)
        if selection.into is None or shares is None:
            return kept
        into, home = selection.into[row, : image.visual], image.packed.device
        merged = merge(image.tokens, into.to(home), shares.to(home))[indices.to(home)]
        return replace(kept, tokens=merged, into=into, shares=shares)


def choose(
    requests: Sequence[Request], texts: Sequence[Tensor], run: RunSettings, watch: Stopwatch, *, on_cpu: bool = False
) -> list[Kept]:
    """Choose the tokens that are kept of B requests' images; adds to `watch` under `score` and `prune`.

    Requests with the same budget are pruned together, those of `auto` scored together before it is known; where the
    budget covers everything nothing is scored. Where the pruner goes by the image alone, or questions choose together,
    it is asked once for all such requests about an image.

    Args:
        requests: each answered under `Request.settings`.
        texts: (T, D) for each, the embeddings of the text behind the image, of all that it `asked` in a row.
        run: how.
        watch: gets the seconds.
        on_cpu: prune there, wherever the evidence is.

    Raises:
        InputError: similarity that is not finite, a pruner that breaks its promise, or fewer tokens than crops
            where each crop has a budget of its own.
    """
    kept: list[Kept | None] = [None] * len(requests)
    budgets: dict[int | None, list[int]] = {}
    for number, request in enumerate(requests):
        settings = request.settings(run)
        keep = settings.pruned_to(request.image.visual, whole=request.image.whole_visual)
        if keep is not None:
            budgets.setdefault(None if settings.budget.held else keep, []).append(number)
    for budget, numbers in budgets.items():
        pruner = pruners.get(run.pruner)
        alike = _alike(requests, numbers, run, by_image=run.by_image and budget is not None)
        numbers, reads = list(alike), pruner.reads
        some = [requests[i] for i in numbers]
        with watch.span("score"):
            reads = reads if budget is not None else reads | auto_budget.READS
            seeds = [request.choice_seed(run.seed) for request in some]
            evidence = evidence_of(some, [texts[i] for i in numbers], seeds, reads)
        with watch.span("prune"):
            evidence = evidence.on_cpu() if on_cpu else evidence
            keeps = [budget] * len(some) if budget is not None else _needed(some, evidence, run)
            selected = list(_selected(evidence, keeps, run))
            counted = [_counts(selection) for _, selection in selected]
        for (rows, selection), counts in zip(selected, counted, strict=True):
            for place, row in enumerate(rows):
                members = [numbers[row], *alike[numbers[row]]]
                if run.select == "split" and len(some[row].asked) > 1:
                    own = divided([requests[i] for i in members], evidence, row, selection, place)
                else:
                    own = [Kept.chosen(some[row].image, selection, place, counts[place])] * len(members)
                for i, one in zip(members, own, strict=True):
                    kept[i] = replace(one, shared=i != members[0])
    return [one or Kept.everything(request.image) for one, request in zip(kept, requests, strict=True)]


def divided(requests: Sequence[Request], evidence: Evidence, row: int, selection: Selection, place: int) -> list[Kept]:
    """Divide one choice for all questions about an image: what saliency chose, and behind it each one's own.

    Of K tokens, those in saliency's list are the same for all questions and come first, in position order; the other
    places are filled with what of the rest matches a question's own words best, in position order, too. So the
    sequence is not the image's order, as it is where each question chooses: causal attention sees what is shared
    before what is a question's own. Positions that are `compact` count this sequence, since those of the shared tokens
    have to be the same for all; `original` ones are the tokens' own places in the image. The tokens are the published
    ones where one question is known, since then the two lists of the mixture are these.

    Args:
        requests: about one image, which choose together.
        evidence, row: what their choice was made by; of all their questions in a row.
        selection, place: that choice.
    """
    indices, salient = selection.indices[place], selection.by_saliency
    if salient is None:
        raise InputError("a choice without two lists cannot be divided", "use select image")
    shared = indices[salient[place]]
    image, count = requests[0].image, len(indices) - len(shared)
    left = evidence.valid[row].index_fill(0, shared, False)
    head = image.packed[image.candidates[shared]]
    by_saliency = torch.arange(len(indices), device=indices.device) < len(shared)
    found = []
    for request in requests:
        relevance = evidence.similarity[row, request.own].amax(dim=0)
        own = ranking(relevance, left, count).sort().values
        places = image.candidates[torch.cat([shared, own])]
        counts = Counts(len(shared), count, 0)
        found.append(Kept(image.packed[places], places, by_saliency, ~by_saliency, counts=counts, head=head))
    return found


def _alike(
    requests: Sequence[Request], numbers: Sequence[int], run: RunSettings, *, by_image: bool
) -> dict[int, list[int]]:
    """Find for each request that is to be pruned those whose tokens are chosen with its own, by image or together.

    They all have the same budget, or each one of `auto`, which may be to hold another share.
    """
    firsts: dict[Hashable, int] = {}
    alike: dict[int, list[int]] = {}
    for number in numbers:
        request = requests[number]
        asked = () if by_image else tuple(prompt.text for prompt in request.asked)
        together = by_image or len(asked) > 1
        key = (id(request.image), asked, request.settings(run).budget.held)
        first = firsts.setdefault(key, number) if together else number
        alike.setdefault(first, []).extend([] if first == number else [number])
    return alike


def evidence_of(
    requests: Sequence[Request], texts: Sequence[Tensor], seeds: Sequence[int], reads: Collection[str]
) -> Evidence:
    """Gather what a pruner that reads `reads` may look at; `texts` as for `choose`.

    Raises:
        InputError: similarity that is not finite.
    """
    evidence = gather_evidence(
        [request.image for request in requests],
        texts,
        [request.spans for request in requests],
        seeds,
        reads,
    )
    if evidence.similarity.numel():
        check_scores("similarity", evidence.similarity)
    return evidence


def _counts(selection: Selection) -> list[Counts]:
    """Count what was chosen of each row; asks the device once for all of them."""
    rows, keep = selection.indices.shape
    masks = (selection.by_saliency, selection.by_similarity)
    asked = [] if selection.into is None else [(selection.into >= 0).sum(dim=1) - keep]
    if masks[0] is not None and masks[1] is not None:
        asked += [mask.sum(dim=1) for mask in (*masks, masks[0] & masks[1]) if mask is not None]
    if not asked:
        return [Counts()] * rows
    answered = torch.stack(asked, dim=1).tolist()
    merged = [0] * rows if selection.into is None else [one.pop(0) for one in answered]
    return [replace(Counts(*one), merged=many) for one, many in zip(answered, merged, strict=True)]


def _needed(requests: Sequence[Request], evidence: Evidence, run: RunSettings) -> list[int]:
    """Find the budget that each image and question needs, of requests whose budget is `auto`."""
    held = [float(request.settings(run).budget.held or 1) for request in requests]
    found: list[int] = auto_budget.budgets(evidence, held).tolist()
    return found


def _selected(evidence: Evidence, keeps: Sequence[int], run: RunSettings) -> Iterator[tuple[list[int], Selection]]:
    """Ask the pruner once for each budget: the rows that have it, and what it selects of them."""
    pruner = pruners.get(run.pruner)
    ask = partial(each, pruner) if run.each_crop else pruner
    for keep in dict.fromkeys(keeps):
        rows = [row for row, own in enumerate(keeps) if own == keep]
        yield rows, ask(evidence if len(rows) == len(keeps) else evidence.part(rows), keep)
