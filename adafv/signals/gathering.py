"""Gathers what a pruner may look at from images and questions of different sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adafv.evidence import Evidence
from adafv.families.llava import ImageEncoding
from adafv.signals.similarity import cosines, text_to_image


@dataclass(frozen=True)
class Query:
    """What is asked about one image.

    Args:
        image: the same one may be asked about more than once.
        text: (T, D) input embeddings of the text behind the image placeholder.
        own: first of the text tokens that are the question's own, and the one behind the last; all count as such
            where that leaves none.
        seed: for pruners that draw.
    """

    image: ImageEncoding
    text: Tensor
    own: tuple[int, int]
    seed: int


def gather_evidence(queries: Sequence[Query], reads: Collection[str]) -> Evidence:
    """Evidence for B prompts, padded at the end of each row.

    Args:
        queries: one for each prompt.
        reads: of `text`, `tokens`, `features`: what the pruner looks at; the rest is left empty.
    """
    images = [one.image for one in queries]
    texts = [one.text if "text" in reads else one.text[:0] for one in queries]
    saliency = _padded([image.saliency for image in images])
    cosine = saliency.new_zeros(len(queries), max(map(len, texts)), saliency.shape[1])
    similarity, own = torch.zeros_like(cosine), torch.zeros_like(cosine[..., 0], dtype=torch.bool)
    for row, (image, text) in enumerate(zip(images, texts, strict=True)):
        if len(text):
            found = cosines(text, image.tokens)
            cosine[row, : len(text), : image.visual] = found
            similarity[row, : len(text), : image.visual] = text_to_image(found)
            first, end = queries[row].own
            own[row, slice(first, end) if first < end else slice(len(text))] = True
    return Evidence(
        saliency=saliency,
        cosine=cosine,
        similarity=similarity,
        own=own,
        tokens=_padded([image.tokens if "tokens" in reads else image.tokens[:, :0] for image in images]),
        features=_padded([image.features if "features" in reads else image.features[:, :0] for image in images]),
        valid=_padded([torch.ones_like(image.candidates, dtype=torch.bool) for image in images]),
        crop=_padded([image.crop for image in images]),
        cell=_padded([image.cell for image in images]),
        texts=tuple(map(len, texts)),
        crops=tuple(image.crops for image in images),
        grids=tuple(image.grids for image in images),
        seeds=tuple(one.seed for one in queries),
    )


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)
