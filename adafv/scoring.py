"""Gathers what a pruner may look at from images and questions of different sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adafv.evidence import Evidence
from adafv.llava import ImageEncoding
from adafv.similarity import text_to_image


def gather_evidence(encodings: Sequence[ImageEncoding], texts: Sequence[Tensor], seeds: Sequence[int]) -> Evidence:
    """Evidence for B prompts, padded at the end of each row.

    Args:
        encodings: one image for each prompt; the same one may stand there more than once.
        texts: for each prompt (T, D) input embeddings of the text that similarity looks at; T = 0 for pruners that
            look at none.
        seeds: one for each prompt.
    """
    lengths = [encoding.visual for encoding in encodings]
    most_text, most_visual = max(len(text) for text in texts), max(lengths)
    saliency = pad_sequence([encoding.saliency for encoding in encodings], batch_first=True)
    similarity = saliency.new_zeros(len(texts), most_text, most_visual)
    for row, (encoding, text) in enumerate(zip(encodings, texts, strict=True)):
        if len(text):
            similarity[row, : len(text), : encoding.visual] = text_to_image(text, encoding.packed[encoding.candidates])
    return Evidence(
        saliency=saliency,
        similarity=similarity,
        valid=pad_sequence([torch.ones_like(e.candidates, dtype=torch.bool) for e in encodings], batch_first=True),
        crop=pad_sequence([encoding.crop for encoding in encodings], batch_first=True),
        crops=tuple(encoding.crops for encoding in encodings),
        grids=tuple(encoding.grids for encoding in encodings),
        seeds=tuple(seeds),
    )
