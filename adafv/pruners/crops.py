"""A budget for each crop: whatever the pruner, it chooses within every crop as if that were the image.

The released codes of CDPruner, SCOPE, MMTok and VisionZip choose so on LLaVA-NeXT; here all scales and softmaxes are
each crop's own then.
A crop becomes a row of a batch, so no pruner knows of it, another package's neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adafv.errors import InputError
from adafv.evidence import Evidence, Grid, Selection
from adafv.signals.similarity import text_to_image


def shares(sizes: Sequence[int], keep: int) -> list[int]:
    """Deal `keep` tokens out to crops, as evenly as these have them.

    Each gets `keep // crops`, and the first `keep % crops` one more. A crop with fewer candidates than that keeps all,
    and what it leaves is dealt out to the others in the same way; one without any does not count.

    Args:
        sizes: candidates of each crop, more than `keep` together.
        keep: the budget K.

    Raises:
        InputError: fewer tokens than crops.
    """
    dealt, hungry = [0] * len(sizes), [crop for crop, size in enumerate(sizes) if size]
    if keep < len(hungry):
        what = f"keep: {keep} visual tokens are fewer than the image's {len(hungry)} crops, and each is to keep some"
        raise InputError(what, f"keep {len(hungry)} or more, or choose over all crops together (--crop-budget joint)")
    while True:
        share, more = divmod(keep, len(hungry))
        full = [crop for crop in hungry if sizes[crop] <= share]
        if not full:
            break
        for crop in full:
            dealt[crop] = sizes[crop]
        keep -= sum(sizes[crop] for crop in full)
        hungry = [crop for crop in hungry if crop not in full]
    for place, crop in enumerate(hungry):
        dealt[crop] = share + (place < more)
    return dealt


@dataclass(frozen=True)
class _Crop:
    """One crop of one image: its number there, where its candidates are among the image's, and their grid."""

    image: int
    number: int
    places: Tensor
    grid: Grid


@dataclass(frozen=True)
class _Chosen:
    """What is kept of a crop, and what is merged of it, as of `Selection`, by the image's own indices."""

    crop: _Crop
    indices: Tensor
    by_saliency: Tensor | None
    by_similarity: Tensor | None
    into: Tensor | None
    weights: Tensor | None


def each(
    choose: Callable[[Evidence, int], Selection], evidence: Evidence, keep: int, *, rescore: bool = True
) -> Selection:
    """Let a pruner choose within each crop on its own, and put the parts together. Waits for the device once.

    Args:
        choose: the pruner; crops that keep all of their candidates are not shown to it.
        evidence: B images, more than `keep` candidates each.
        keep: the budget K, dealt out by `shares`.
        rescore: make each crop's similarity of its own cosines; not where there are none.

    Raises:
        InputError: fewer tokens than crops.
    """
    chosen: list[list[_Chosen]] = [[] for _ in evidence.lengths]
    todo: dict[int, list[_Crop]] = {}
    for crops in _crops(evidence):
        for crop, share in zip(crops, shares([len(crop.places) for crop in crops], keep), strict=True):
            if share < len(crop.places):
                todo.setdefault(share, []).append(crop)
            else:
                both = torch.ones_like(crop.places, dtype=torch.bool)
                chosen[crop.image].append(_Chosen(crop, crop.places, both, both, None, None))
    for share, crops in todo.items():
        selection = choose(_rows(evidence, crops, rescore=rescore), share)
        for row, crop in enumerate(crops):
            chosen[crop.image].append(_own(crop, selection, row))
    return _joined(chosen, evidence)


def _own(crop: _Crop, selection: Selection, row: int) -> _Chosen:
    """Say by the image's own indices what one row of a selection says of a crop."""
    into, weights = (
        None if values is None else values[row, : len(crop.places)] for values in (selection.into, selection.weights)
    )
    if into is not None:
        into = torch.where(into < 0, -1, crop.places[into.clamp(min=0)])
    saliency, similarity = (
        None if mask is None else mask[row] for mask in (selection.by_saliency, selection.by_similarity)
    )
    return _Chosen(crop, crop.places[selection.indices[row]], saliency, similarity, into, weights)


def _crops(evidence: Evidence) -> list[list[_Crop]]:
    """Take apart the crops of each image."""
    numbers, cells, device = evidence.crop.cpu(), evidence.cell.cpu(), evidence.crop.device
    found = []
    for image, (length, count, grids) in enumerate(
        zip(evidence.lengths, evidence.num_crops, evidence.grids, strict=True)
    ):
        own = numbers[image, :length]
        parts = [(own == number).nonzero()[:, 0] for number in range(count)]
        found.append(
            [
                _Crop(image, number, places.to(device), _grid(cells[image, places], grids[0][1]))
                for number, places in enumerate(parts)
            ]
        )
    return found


def _grid(cells: Tensor, columns: int) -> Grid:
    """Tell rows and columns of a crop's candidates, which are in order and unpadded: a part of its patch grid."""
    rows = len(set((cells // columns).tolist()))
    return (rows, len(cells) // rows) if rows and not len(cells) % rows else (1, len(cells))


def _rows(evidence: Evidence, crops: Sequence[_Crop], *, rescore: bool) -> Evidence:
    """Make evidence in which each crop is an image of its own."""
    lengths = tuple(evidence.text_lengths[crop.image] for crop in crops)

    def rows(name: str) -> Tensor:
        values: Tensor = getattr(evidence, name)
        return pad_sequence([values[crop.image, crop.places] for crop in crops], batch_first=True)

    saliency = rows("saliency")
    cosine = saliency.new_zeros(len(crops), max(lengths), saliency.shape[1])
    similarity, question = torch.zeros_like(cosine), torch.zeros_like(cosine[..., 0], dtype=torch.bool)
    for row, (crop, texts) in enumerate(zip(crops, lengths, strict=True)):
        visual = len(crop.places)
        matched = evidence.cosine[crop.image, :texts][:, crop.places]
        scored = text_to_image(matched) if rescore else evidence.similarity[crop.image, :texts][:, crop.places]
        cosine[row, :texts, :visual], similarity[row, :texts, :visual] = matched, scored
        question[row, :texts] = evidence.question_mask[crop.image, :texts]
    return Evidence(
        saliency=saliency,
        cosine=cosine,
        similarity=similarity,
        question_mask=question,
        tokens=rows("tokens"),
        features=rows("features"),
        keys=rows("keys"),
        valid=rows("valid"),
        crop=torch.zeros_like(rows("crop")),
        cell=rows("cell"),
        text_lengths=lengths,
        num_crops=(1,) * len(crops),
        grids=tuple((crop.grid,) for crop in crops),
        seeds=tuple(evidence.seeds[crop.image] + crop.number for crop in crops),
        cosines=(None,) * len(crops),  # those of an image are of all its crops together
    )


def _joined(chosen: Sequence[Sequence[_Chosen]], evidence: Evidence) -> Selection:
    """Put together what is kept of the crops of each image, in position order, and what is merged."""
    indices, order = torch.stack([torch.cat([part.indices for part in parts]) for parts in chosen]).sort(dim=1)

    def mask(name: str) -> Tensor | None:
        rows = [[getattr(part, name) for part in parts] for parts in chosen]
        if any(said is None for row in rows for said in row):
            return None
        return torch.stack([torch.cat(row) for row in rows]).gather(1, order)

    split = Selection(indices, mask("by_saliency"), mask("by_similarity"))
    if all(part.into is None for parts in chosen for part in parts):
        return split
    into = torch.full_like(evidence.crop, -1).scatter_(1, indices, indices)  # where a crop merges nothing
    weighted = any(part.weights is not None for parts in chosen for part in parts)
    weights = torch.ones_like(evidence.saliency) if weighted else None
    for image, parts in enumerate(chosen):
        for part in parts:
            if part.into is not None:
                into[image, part.crop.places] = part.into
            if weights is not None and part.weights is not None:
                weights[image, part.crop.places] = part.weights
    return replace(split, into=into, weights=weights)
