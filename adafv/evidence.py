"""What a pruner may look at, and what it answers: frozen records of tensors, no model in sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adafv.errors import InputError

Grid = tuple[int, int]


@dataclass(frozen=True)
class Evidence:
    """A padded batch of B images with one question each; N candidates at most, T text tokens at most.

    Args:
        saliency: (B, N) float32, attention of [CLS], or received where there is none; zero on padding.
        cosine: (B, T, N) float32, cosine of each text token's input embedding and each visual token; zero on padding.
        similarity: (B, T, N) float32, softmax of each text token over the candidates; zero on padding.
        question_mask: (B, T) bool, the text tokens that are the question's own: neither the template's nor a customary
            instruction's ("Answer the question using a single word or phrase."); all of them where a question has
            none; false on padding.
        tokens: (B, N, D), visual tokens as the language model takes them; zero on padding.
        features: (B, N, C), the vision tower's features that the projector made them of; zero on padding.
        keys: (B, N, C'), key projections of the vision layer whose attention is the saliency; zero on padding.
        valid: (B, N) bool, false on padding, which is always at the end of a row.
        crop: (B, N) int64, the crop a candidate comes from.
        cell: (B, N) int64, its place in the patch grid of that crop, row by row. Candidates that were interpolated
            from several patches have crop and cell of the patch under their middle, so that two may share one. The
            patch grids of all crops have one shape, which is that of the image's first of `grids`.
        text_lengths: text tokens of each question.
        num_crops: crops of each image.
        grids: per image, (rows, columns) of the patch grids that make up its candidates, in order and row by
            row: one for LLaVA-1.5; for LLaVA-NeXT the thumbnail's, then the unpadded mosaic's, of all tiles
            together. What lies beside what, and where a grid ends, is told by these, not by `crop` and `cell`.
        seeds: per image, for pruners that draw.
        cosines: per image, `ImageEncoding.cosines` where it is there more than once, otherwise `None`.

    What a pruner does not read (`Pruner.reads`) may be empty: T = 0, D = 0, C = 0 or C' = 0.
    """

    saliency: Tensor
    cosine: Tensor
    similarity: Tensor
    question_mask: Tensor
    tokens: Tensor
    features: Tensor
    keys: Tensor
    valid: Tensor
    crop: Tensor
    cell: Tensor
    text_lengths: tuple[int, ...]
    num_crops: tuple[int, ...]
    grids: tuple[tuple[Grid, ...], ...]
    seeds: tuple[int, ...]
    cosines: tuple[dict[str, Tensor] | None, ...]

    @classmethod
    def of_scores(cls, saliency: Tensor, similarity: Tensor, crop: Tensor | None = None) -> Evidence:
        """Make evidence of scores alone, for images without padding whose candidates form one row.

        Args:
            saliency: (B, N).
            similarity: (B, T, N).
            crop: (B, N) int64, counted from 0; one crop when omitted. `cell` and `grids` do not go by it.
        """
        batch, visual = saliency.shape
        none = torch.zeros_like(saliency, dtype=torch.long)
        empty = saliency.new_zeros(batch, visual, 0)
        return cls(
            saliency=saliency.float(),
            cosine=torch.zeros_like(similarity, dtype=torch.float32),
            similarity=similarity.float(),
            question_mask=torch.ones_like(similarity[:, :, 0], dtype=torch.bool),
            tokens=empty,
            features=empty,
            keys=empty,
            valid=torch.ones_like(saliency, dtype=torch.bool),
            crop=none if crop is None else crop,
            cell=torch.arange(visual, device=saliency.device).expand(batch, -1),
            text_lengths=(similarity.shape[1],) * batch,
            num_crops=(1,) * batch if crop is None else tuple((crop.amax(dim=1) + 1).tolist()),
            grids=(((1, visual),),) * batch,
            seeds=(0,) * batch,
            cosines=(None,) * batch,
        )

    def on_cpu(self) -> Evidence:
        """Move the tensors to the CPU."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.cpu() for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def part(self, rows: slice | Sequence[int]) -> Evidence:
        """Take some of the images, without the padding that none of them needs."""
        images = range(len(self.grids))[rows] if isinstance(rows, slice) else rows
        whole = {field.name: getattr(self, field.name) for field in fields(self)}
        values: dict[str, Any] = {
            name: value[rows] if isinstance(value, Tensor) else tuple(value[image] for image in images)
            for name, value in whole.items()
        }
        visual, texts = max(self.lengths[image] for image in images), max(values["text_lengths"])
        for name in ("saliency", "tokens", "features", "keys", "valid", "crop", "cell"):
            values[name] = values[name][:, :visual]
        for name in ("cosine", "similarity"):
            values[name] = values[name][:, :texts, :visual]
        return Evidence(**values | {"question_mask": values["question_mask"][:, :texts]})

    @property
    def lengths(self) -> tuple[int, ...]:
        """Candidates of each image, without padding and without asking the device."""
        return tuple(sum(rows * columns for rows, columns in grids) for grids in self.grids)

    @cached_property
    def relevance(self) -> Tensor:
        """(B, N) float32: the similarity of each candidate to its best text token, `t_i = max_j S_ji`."""
        return self.similarity.amax(dim=1)


@dataclass(frozen=True)
class Selection:
    """What a pruner keeps, and what it merges into that.

    A merger also says where each candidate goes: what is fed at the place of a kept candidate is the weighted mean of
    all visual tokens that go into it.

    Args:
        indices: (B, K) int64, distinct, ascending.
        by_saliency: (B, K) bool, chosen by saliency; `None` where the pruner has no such split.
        by_similarity: (B, K) bool, chosen by similarity; a token can be both.
        into: (B, N) int64, the kept candidate that each candidate goes into, a kept one into itself; -1 for what is
            left out, padding too. `None` where nothing is merged.
        weights: (B, N) float32 of what is merged, not negative, and not all zero in any mean; `None` for equal ones.
    """

    indices: Tensor
    by_saliency: Tensor | None = None
    by_similarity: Tensor | None = None
    into: Tensor | None = None
    weights: Tensor | None = None

    @classmethod
    def of_mask(cls, kept: Tensor, keep: int, by_saliency: Tensor, by_similarity: Tensor) -> Selection:
        """Select by (B, N) masks, `kept` true exactly `keep` times a row. No host synchronisation."""
        indices = compress(kept, keep)
        return cls(indices, by_saliency.gather(1, indices), by_similarity.gather(1, indices))

    def shares(self, row: int, visual: int) -> Tensor | None:
        """Weigh what is merged of the `visual` candidates of one image: (N,) float32, one in sum for each mean."""
        if self.into is None:
            return None
        into = self.into[row, :visual]
        weights = torch.ones_like(into, dtype=torch.float32)
        if self.weights is not None:
            weights = self.weights[row, :visual].float()
        weights = weights.masked_fill(into < 0, 0.0)
        sums = torch.zeros_like(weights).index_add_(0, into.clamp(min=0), weights)
        return torch.where(into < 0, 0.0, weights / sums[into.clamp(min=0)])


def merge(tokens: Tensor, into: Tensor, shares: Tensor) -> Tensor:
    """Add up what goes into each candidate, in float32: (N, D), zero where nothing does.

    Args:
        tokens: (N, D).
        into: (N,) int64, the candidate that each goes into, -1 for nowhere.
        shares: (N,) float32, what of each.
    """
    sums = torch.zeros_like(tokens, dtype=torch.float32)
    sums.index_add_(0, into.clamp(min=0), tokens.float() * shares[:, None])
    return sums.to(tokens.dtype)


def compress(mask: Tensor, count: int) -> Tensor:
    """Find the first columns at which each row of `mask` (..., N) is true, ascending: (..., count) int64.

    Rows with fewer end in zeros. `nonzero` would do the same with a host synchronisation.
    """
    columns = torch.arange(mask.shape[-1], device=mask.device).expand(mask.shape)
    # Entries that are not wanted are written to a place behind the last, which is cut off.
    place = mask.cumsum(dim=-1).sub_(1).masked_fill_(~mask, count).clamp_(max=count)
    out = columns.new_zeros(*mask.shape[:-1], count + 1)
    return out.scatter_(-1, place, columns)[..., :count]


def check_scores(name: str, scores: Tensor) -> None:
    """Refuse scores that cannot be ranked. Synchronises with the device once.

    Raises:
        InputError: NaN, infinite or negative values.
    """
    lowest, highest = scores.aminmax()
    if bool((lowest >= 0) & (highest < torch.inf)):  # false for NaN as well, which aminmax propagates
        return
    bad = scores[~torch.isfinite(scores) | (scores < 0)]
    raise InputError(
        f"{name}: {bad.numel()} of {scores.numel()} scores are NaN, infinite or negative, the first is {bad[0].item()}",
        "scores are attention or softmax weights; check the checkpoint's weights and dtype (try --dtype float32)",
    )
