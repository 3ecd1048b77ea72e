"""Small images for pruners, of every kind that could break one, and how they are gathered into evidence."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from adafv.encoding import ImageEncoding
from adafv.evidence import Evidence
from adafv.signals.gathering import gather_evidence
from tests.pruner_references import Case

GRIDS = [((1, 1),), ((1, 2),), ((2, 3),), ((4, 4),), ((3, 7),), ((2, 2), (1, 5)), ((2, 2), (4, 3)), ((3, 3), (2, 5))]
KINDS = ("plain", "narrow", "duplicates", "equal", "zeros", "no saliency", "tied saliency", "positive", "flat")
WIDTH = 24  # more than tokens, so that none is in the span of others by chance
READS = frozenset({"text", "tokens", "features", "keys"})


def draw(rng: random.Random, grids: tuple[tuple[int, int], ...] = (), kind: str = "") -> Case:
    """One image, of any kind and size unless they are given; its numbers are float32."""
    grids, kind = grids or rng.choice(GRIDS), kind or rng.choice(KINDS)
    visual = sum(rows * columns for rows, columns in grids)
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    width = 2 if kind == "flat" else WIDTH
    tokens, features = torch.randn(visual, width, generator=generator), torch.randn(visual, 7, generator=generator)
    keys = torch.randn(visual, 5, generator=torch.Generator().manual_seed(visual))
    saliency, texts = torch.rand(visual, generator=generator), rng.randint(1, 5)
    if kind == "narrow":
        tokens, features = tokens * 0.1 + 1, features * 0.1 + 1
    elif kind == "duplicates":
        same = torch.randint(0, max(1, visual // 2), (visual,), generator=generator)
        tokens, features, keys, saliency = tokens[same], features[same], keys[same], saliency[same]
    elif kind == "equal":
        tokens, features, keys = (values[:1].expand(visual, -1) for values in (tokens, features, keys))
    elif kind == "zeros":
        gone = torch.rand(visual, generator=generator) < 0.5
        tokens, features, keys = (values.masked_fill(gone[:, None], 0) for values in (tokens, features, keys))
    elif kind == "no saliency":
        saliency = torch.zeros(visual)
    elif kind == "tied saliency":
        saliency = (saliency * 3).round() / 3
    elif kind == "positive":
        tokens, features = tokens.abs(), features.abs()
    crop = [0] * visual
    if len(grids) > 1:  # the thumbnail, then tiles in any mosaic order
        head = grids[0][0] * grids[0][1]
        crop = [0] * head + [1 + (place + rng.randint(0, 1)) % 3 for place in range(visual - head)]
        crop[-1] = 3
    first = rng.randint(0, texts)
    text = torch.randn(texts, width, generator=generator)
    return Case(
        saliency.double().tolist(), tokens.double().tolist(), features.double().tolist(), keys.double().tolist(),
        text.double().tolist(), (first, rng.randint(first, texts)), crop, grids, rng.getrandbits(32),
    )  # fmt: skip


def encoding(case: Case, dtype: torch.dtype = torch.float32) -> ImageEncoding:
    """The image as the stages would have it, but for `cell`: its place in its grid, since crops here have no shape."""
    cells = [place for rows, columns in case.grids for place in range(rows * columns)]
    return ImageEncoding(
        packed=torch.tensor(case.tokens, dtype=dtype),
        candidates=torch.arange(case.visual),
        features=torch.tensor(case.features, dtype=dtype),
        saliency=torch.tensor(case.saliency, dtype=torch.float32),
        crop=torch.tensor(case.crop),
        cell=torch.tensor(cells),
        crops=max(case.crop) + 1,
        grids=case.grids,
        keys=torch.tensor(case.keys, dtype=dtype),
    )


def gathered(cases: list[Case], reads: frozenset[str] = READS, dtype: torch.dtype = torch.float32) -> Evidence:
    """Evidence of a batch; tokens of all must be of one width."""
    return gather_evidence(
        [encoding(case, dtype) for case in cases],
        [torch.tensor(case.text, dtype=dtype) for case in cases],
        [case.own for case in cases],
        [case.seed for case in cases],
        reads,
    )


def drawn(rng: random.Random, batch: int) -> list[Case]:
    """A batch of different sizes whose vectors have one width."""
    cases: list[Case] = []
    while len(cases) < batch:
        case = draw(rng)
        if len(case.tokens[0]) == WIDTH:
            cases.append(case)
    return cases


def spoiled(evidence: Evidence, value: float) -> Evidence:
    """With `value` instead of zeros wherever a candidate is padding, and in cosines of text that is padding."""
    padding = ~evidence.valid
    texts = torch.tensor(evidence.text_lengths)[:, None] <= torch.arange(evidence.cosine.shape[1])
    return replace(
        evidence,
        saliency=evidence.saliency.masked_fill(padding, value),
        cosine=evidence.cosine.masked_fill(padding[:, None] | texts[..., None], value),
        similarity=evidence.similarity.masked_fill(padding[:, None], value),
        tokens=evidence.tokens.masked_fill(padding[..., None], value),
        features=evidence.features.masked_fill(padding[..., None], value),
        keys=evidence.keys.masked_fill(padding[..., None], value),
        crop=evidence.crop.masked_fill(padding, 7),
        cell=evidence.cell.masked_fill(padding, 3),
    )
