"""Coverage pruners against the plain loop of their definitions: `python benchmarks/plain_loops.py [ROUNDS]`.

The plain loop works out every candidate's gain anew for each token that it takes, in float32, one image after another.
Random fields at the geometry of LLaVA-1.5 and LLaVA-NeXT, whose neighbours are alike; medians of interleaved rounds on
one thread, and of the ratios round by round. Both keep the same tokens, which is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from measuring import interleaved, table
from torch.nn.functional import interpolate, normalize

from adafv import pruners
from adafv.encoding import ImageEncoding
from adafv.evidence import Evidence, Grid
from adafv.signals.gathering import gather_evidence

TEXT, OWN, HIDDEN, FEATURES = 60, 8, 4096, 1024
CASES: tuple[tuple[Grid, int], ...] = (((24, 24), 1), ((24, 24), 8), ((48, 60), 1))
KEEPS = (64, 320)

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)


def gathered(grid: Grid, batch: int) -> Evidence:
    places = torch.arange(grid[0] * grid[1])

    def field(width: int) -> torch.Tensor:
        smooth = interpolate(torch.randn(1, width, 8, 8, generator=generator), size=grid, mode="bicubic")
        return smooth[0].flatten(1).T + 0.5 * torch.randn(len(places), width, generator=generator)

    def image() -> ImageEncoding:
        saliency = torch.randn(len(places), generator=generator).softmax(0)
        return ImageEncoding(
            field(HIDDEN), places, field(FEATURES), saliency, torch.zeros_like(places), places, 1, (grid,)
        )

    texts = [torch.randn(TEXT, HIDDEN, generator=generator) for _ in range(batch)]
    images = [image() for _ in range(batch)]
    return gather_evidence(images, texts, [(1, 1 + OWN)] * batch, range(batch), {"text", "features"})


def covering(rows: torch.Tensor, weights: torch.Tensor | float, keep: int) -> list[int]:
    """Take `keep` columns one after another, each time that whose weighted gain is largest."""
    covered, kept = rows.new_zeros(len(rows)), torch.zeros(rows.shape[1], dtype=torch.bool)
    for _ in range(keep):
        gains = weights * (rows - covered[:, None]).clamp(min=0).sum(dim=0)
        best = gains.masked_fill(kept, -1).argmax()
        kept[best] = True
        covered = torch.maximum(covered, rows[:, best])
    return kept.nonzero()[:, 0].tolist()


def mmtok(evidence: Evidence, keep: int) -> list[list[int]]:
    kept = []
    for cosine, own, features in zip(evidence.cosine, evidence.question_mask, evidence.features, strict=True):
        unit = normalize(features, dim=-1)
        text, image = (cosine[own] / 0.02).softmax(dim=-1), (unit @ unit.T / 0.2).softmax(dim=-1)
        kept.append(covering(torch.cat([text / len(text), 0.5 * image / len(image)]), 1.0, keep))
    return kept


def scope(evidence: Evidence, keep: int) -> list[list[int]]:
    kept = []
    for saliency, features in zip(evidence.saliency, evidence.features, strict=True):
        unit = normalize(features, dim=-1)
        kept.append(covering((unit @ unit.T).clamp(min=0), saliency, keep))
    return kept


PLAIN: dict[str, Callable[[Evidence, int], list[list[int]]]] = {"mmtok": mmtok, "scope": scope}

with torch.inference_mode():
    for size, count in CASES:
        evidence = gathered(size, count)
        for name, plain in PLAIN.items():
            for budget in KEEPS:
                ours = partial(pruners.get(name), evidence, budget)
                assert ours().indices.tolist() == plain(evidence, budget)
                variants = {"plain loop": partial(plain, evidence, budget), "adafv": ours}
                print(f"\n{name}: {count} x {size[0] * size[1]} to {budget}")
                print(table(interleaved(variants, int((*sys.argv[1:], "5")[0])), 1e3, "ms"), flush=True)
