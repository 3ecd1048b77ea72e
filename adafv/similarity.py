"""Text-to-image similarity: how well each visual token matches each word, in the language model's input space."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

SHARPNESS = 100.0  # the factor of CLIP's logits, as the paper's released code has it


def text_to_image(text: Tensor, visual: Tensor) -> Tensor:
    """`S = softmax over the candidates of (100 * cos(e_j, v_i))`, for every text token j. Computed in float32.

    Args:
        text: (T, D), the language model's input embeddings of the text after the image placeholder.
        visual: (N, D), the projected visual tokens of all crops: they share one softmax.

    Returns:
        (T, N) float32; rows sum to one.
    """
    cosine = normalize(text.float(), dim=-1) @ normalize(visual.float(), dim=-1).T
    return (SHARPNESS * cosine).softmax(dim=-1)
