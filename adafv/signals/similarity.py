"""Text-to-image similarity: how well each visual token matches each word, in the language model's input space."""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 100.0  # the factor of CLIP's logits, as the paper's released code has it
LEAST = 1e-12  # what vectors are divided by that have no length
ROWS = 16  # matrices are multiplied in multiples of these


def padded_unit_rows(vectors: Tensor) -> Tensor:
    """Rows of length one in float32 (zero rows stay zero), zero rows behind them up to a multiple of `ROWS`.

    Kernels add up the last few rows of an odd number in another order, by which equal tokens would come out unequal
    and ties would be settled by rounding.

    Args:
        vectors: (N, D).
    """
    values = vectors.float()
    unit = values.new_empty(len(values) + -len(values) % ROWS, values.shape[1])
    torch.div(values, values.norm(dim=-1, keepdim=True).clamp_min_(LEAST), out=unit[: len(values)])
    unit[len(values) :] = 0
    return unit


def cosines(text: Tensor, visual: Tensor) -> Tensor:
    """Compute `cos(e_j, v_i)` for every text token j and visual token i, in float32.

    Args:
        text: (T, D), the language model's input embeddings of the text after the image placeholder.
        visual: (at least N, D), `padded_unit_rows` of the projected visual tokens of all crops.

    Returns:
        (T, at least N) float32, zero behind the N of them.
    """
    return (padded_unit_rows(text) @ visual.T)[: len(text)]


def text_to_image(cosine: Tensor) -> Tensor:
    """Compute `S = softmax over the candidates of (100 * cos(e_j, v_i))`: all crops share one softmax.

    Args:
        cosine: (T, N), of `cosines`.

    Returns:
        (T, N); rows sum to one.
    """
    return (SHARPNESS * cosine).softmax(dim=-1)
