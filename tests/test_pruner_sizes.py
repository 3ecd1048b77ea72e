"""Greedy pruners at the size of real images, in blocks and with copies of tokens, against float64 from scratch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from adafv import pruners
from adafv.encoding import ImageEncoding
from adafv.evidence import Evidence
from adafv.signals.gathering import gather_evidence

KEEP = 40


@dataclass(frozen=True)
class Picture:
    """Everything in float64; `first` is the first token that each is a copy of."""

    tokens: Tensor
    features: Tensor
    text: Tensor
    saliency: Tensor
    side: tuple[int, int]
    first: Tensor


def picture(rows: int, columns: int, seed: int) -> Picture:
    """Neighbours are alike, and every fifth token has a copy."""
    generator = torch.Generator().manual_seed(seed)
    visual = rows * columns

    def field(width: int) -> Tensor:
        coarse = torch.randn(1, width, 5, 5, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(rows, columns), mode="bicubic", align_corners=True)
        return (smooth[0].flatten(1).T + 0.3 * torch.randn(visual, width, generator=generator) + 0.5).double()

    tokens, features, saliency = field(96), field(64), torch.rand(visual, generator=generator).double()
    first = torch.arange(visual)
    shuffled = torch.randperm(visual, generator=generator)
    source, copy = shuffled[: visual // 5], shuffled[visual // 5 : 2 * (visual // 5)]
    first[copy] = first[source] = torch.minimum(source, copy)
    for values in (tokens, features, saliency):
        values[copy] = values[source]
    text = tokens[shuffled[-6:]] + torch.randn(6, 96, generator=generator).double()
    parts = (values.float().double() for values in (tokens, features, text, saliency))
    return Picture(*parts, (rows, columns), first)


PICTURES = [picture(24, 24, 0), picture(10, 31, 1), picture(17, 25, 2)]


def gathered(pictures: list[Picture]) -> Evidence:
    def image(one: Picture) -> ImageEncoding:
        places = torch.arange(len(one.tokens))
        return ImageEncoding(
            one.tokens.float(), places, one.features.float(), one.saliency.float(), torch.zeros_like(places), places,
            1, (one.side,),
        )  # fmt: skip

    texts, spans = [one.text.float() for one in pictures], [(1, 4)] * len(pictures)
    return gather_evidence([*map(image, pictures)], texts, spans, [0] * len(pictures), {"text", "tokens", "features"})


def divprune(one: Picture, kept: list[int]) -> Tensor:
    unit = normalize(one.tokens, dim=-1)
    distance = 1 - unit @ unit.T
    if kept:
        return distance[:, kept].amin(dim=1)
    return distance.fill_diagonal_(torch.inf).amin(dim=1)


def cdpruner(one: Picture, kept: list[int]) -> Tensor:
    mean = (normalize(one.text, dim=-1) @ normalize(one.tokens, dim=-1).T).mean(dim=0)
    relevance = (mean - mean.min() + 1e-6) / (mean.max() - mean.min())
    scaled = relevance[:, None] * normalize(one.tokens, dim=-1)
    if kept:
        basis = torch.linalg.qr(scaled[kept].T).Q
        scaled = scaled - scaled @ basis @ basis.T
    return scaled.square().sum(dim=1)


def gain(rows: Tensor, kept: list[int]) -> Tensor:
    covered = rows[:, kept].amax(dim=1) if kept else rows.new_zeros(len(rows))
    return (rows - covered.clamp(min=0)[:, None]).clamp(min=0).sum(dim=0)


def scope(one: Picture, kept: list[int]) -> Tensor:
    unit = normalize(one.features, dim=-1)
    return one.saliency * gain(unit @ unit.T, kept)


def mmtok(one: Picture, kept: list[int]) -> Tensor:
    text = (normalize(one.text, dim=-1) @ normalize(one.tokens, dim=-1).T)[1:4]
    unit = normalize(one.features, dim=-1)
    rows = [(text / 0.02).softmax(dim=1) / 3, 0.5 * (unit @ unit.T / 0.2).softmax(dim=1) / len(unit)]
    return gain(torch.cat(rows), kept)


SCORES: list[Callable[[Picture, list[int]], Tensor]] = [divprune, cdpruner, scope, mmtok]


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
def test_every_token_taken_is_the_best_and_the_first_of_its_copies(
    score: Callable[[Picture, list[int]], Tensor],
) -> None:
    order = importlib.import_module(f"adafv.pruners.{score.__name__}").order
    together = order(gathered(PICTURES), KEEP)
    for number, one in enumerate(PICTURES):
        taken = order(gathered([one]), KEEP)[0].tolist()
        assert taken == together[number].tolist()
        scale = float(score(one, []).max())
        for step, token in enumerate(taken):
            left = score(one, taken[:step])
            left[taken[:step]] = -torch.inf
            assert left[token] >= left.max() * (1 - 1e-5) - 1e-7 * scale
            assert int(one.first[token]) in taken[: step + 1]  # of two copies the lower index comes first
    indices = pruners.get(score.__name__)(gathered(PICTURES), KEEP).indices
    assert torch.equal(indices, together.sort(dim=1).values)
