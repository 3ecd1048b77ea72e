"""Chooses the visual tokens that are kept of each request's image: evidence gathered, budget found, pruner asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from adafv import pruners
from adafv.encoding import ImageEncoding
from adafv.evidence import Evidence, Selection, check_scores, merge
from adafv.pruners import auto_budget
from adafv.pruners.crops import each
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.signals.gathering import gather_evidence
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
    pruned: bool = field(default=True, kw_only=True)
    shared: bool = field(default=False, kw_only=True)

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
    budget covers everything nothing is scored. Where the pruner goes by the image alone, it is asked once for all
    requests about it.

    Args:
        requests: each answered under `Request.settings`.
        texts: (T, D) for each, the embeddings of all its text, that before the image first.
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
        own = request.settings(run)
        keep = own.pruned_to(request.image.visual)
        if keep is not None:
            budgets.setdefault(None if own.budget.held else keep, []).append(number)
    for budget, numbers in budgets.items():
        pruner = pruners.get(run.pruner)
        alike = _alike(requests, numbers, by_image=run.by_image and budget is not None)
        numbers, reads = list(alike), pruner.reads
        some = [requests[i] for i in numbers]
        with watch.span("score"):
            reads = reads if budget is not None else reads | auto_budget.READS
            seeds = [request.seed(run.seed) for request in some]
            evidence = evidence_of(some, [texts[i] for i in numbers], seeds, reads)
        with watch.span("prune"):
            evidence = evidence.on_cpu() if on_cpu else evidence
            keeps = [budget] * len(some) if budget is not None else _needed(some, evidence, run)
            selected = list(_selected(evidence, keeps, run))
            counted = [_counts(selection) for _, selection in selected]
        for (rows, selection), counts in zip(selected, counted, strict=True):
            for place, row in enumerate(rows):
                first = numbers[row]
                chosen = kept[first] = Kept.chosen(some[row].image, selection, place, counts[place])
                for other in alike[first]:
                    kept[other] = replace(chosen, shared=True)
    return [one or Kept.everything(request.image) for one, request in zip(kept, requests, strict=True)]


def _alike(requests: Sequence[Request], numbers: Sequence[int], *, by_image: bool) -> dict[int, list[int]]:
    """Find for each request that is to be pruned those that get the same tokens; none where not `by_image`."""
    firsts: dict[int, int] = {}
    alike: dict[int, list[int]] = {}
    for number in numbers:
        first = firsts.setdefault(id(requests[number].image), number) if by_image else number
        alike.setdefault(first, []).extend([] if first == number else [number])
    return alike


def evidence_of(
    requests: Sequence[Request], texts: Sequence[Tensor], seeds: Sequence[int], reads: Collection[str]
) -> Evidence:
    """Gather what a pruner that reads `reads` may look at; `texts` as of `choose`.

    Raises:
        InputError: similarity that is not finite.
    """
    evidence = gather_evidence(
        [request.image for request in requests],
        [text[len(request.prompt.before) :] for request, text in zip(requests, texts, strict=True)],
        [request.prompt.question_span for request in requests],
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
