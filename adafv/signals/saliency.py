"""Visual saliency: how much the vision tower attends to each patch, from [CLS] or, without one, from all patches."""

from __future__ import annotations

import torch
from torch import Tensor

_AT_ONCE = 2**24  # attention weights that are held at a time, 64 MiB


def cls_attention(cls_query: Tensor, keys: Tensor, heads: int, scale: float) -> Tensor:
    """Average the softmax attention of the [CLS] query over the heads of one layer (FasterVLM, arXiv 2412.01818).

    One row of one layer is all that is needed, so no attention map is ever made. The softmax runs over all keys;
    then [CLS]'s own column is dropped, without renormalising. Computed in float32.

    Args:
        cls_query: (crops, C), the projected query of [CLS].
        keys: (crops, 1 + P, C), the projected keys, [CLS] first.
        heads: attention heads.
        scale: factor on the scores before the softmax, `1 / sqrt(C / heads)` in CLIP.

    Returns:
        (crops, P) float32.
    """
    crops, length, width = keys.shape
    query = cls_query.float().view(crops, heads, 1, width // heads)
    keys = keys.float().view(crops, length, heads, width // heads).permute(0, 2, 3, 1)
    attention = ((query * scale) @ keys).squeeze(2).softmax(dim=-1)  # (crops, heads, 1 + P)
    return attention.mean(dim=1)[:, 1:]


def received_attention(queries: Tensor, keys: Tensor, heads: int, scale: float) -> Tensor:
    """Average the softmax attention of one layer over heads and queries: what each patch receives from all of them.

    For towers without [CLS] (SigLIP). The paper and FasterVLM do not cover such towers, so this is a choice: on the
    demo's tower, with [CLS] left out, it served the pruners far better than the norm of the feature, and no worse than
    [CLS] (`benchmarks/saliency_without_cls.py`). No SigLIP tower was measured.

    Few queries at a time, so that no whole map is held. Computed in float32.

    Args:
        queries, keys: (crops, P, C), the projections of all patches.
        heads, scale: as of `cls_attention`.

    Returns:
        (crops, P) float32; rows sum to one.
    """
    crops, length, width = keys.shape
    received = torch.zeros(crops, length, device=keys.device)
    split = (crops, length, heads, width // heads)
    parts = (part.float().view(split).transpose(1, 2) for part in (queries, keys))  # (crops, heads, P, C / heads)
    step = max(1, _AT_ONCE // (heads * length))
    for crop, (query, key) in enumerate(zip(*parts, strict=True)):
        for some in (query * scale).split(step, dim=1):
            received[crop] += (some @ key.mT).softmax(dim=-1).sum(dim=(0, 1))
    return received / (heads * length)
