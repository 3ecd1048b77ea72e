"""Visual saliency: how much the vision tower's [CLS] token attends to each patch (FasterVLM, arXiv 2412.01818)."""

from __future__ import annotations

from torch import Tensor


def cls_attention(cls_query: Tensor, keys: Tensor, heads: int, scale: float) -> Tensor:
    """Softmax attention of the [CLS] query over the keys of one layer, averaged over heads.

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
