"""Time of AdaFV's selection for a batch of 8 on one thread: `python benchmarks/selection.py`."""

from __future__ import annotations

import torch
from measuring import interleaved, table

import adafv

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
variants = {}
for visual, keeps in ((576, (64, 144, 192)), (2880, (64, 320, 720))):
    saliency = torch.randn(8, visual, generator=generator).softmax(-1)
    similarity = (3 * torch.randn(8, visual, generator=generator)).softmax(-1)
    for keep in keeps:
        variants[f"N={visual} K={keep} B=8"] = lambda s=saliency, t=similarity, k=keep: adafv.select(s, t, k)
print(table(interleaved(variants, rounds=200, warmup=20), 1e3, "ms"))
