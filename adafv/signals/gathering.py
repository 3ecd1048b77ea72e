"""Gathers what a pruner may look at from images and questions of different sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adafv.encoding import ImageEncoding
from adafv.errors import InputError
from adafv.evidence import Evidence
from adafv.signals.similarity import cosines, padded_unit_rows, text_to_image


def gather_evidence(
    images: Sequence[ImageEncoding],
    texts: Sequence[Tensor],
    spans: Sequence[Sequence[int]],
    seeds: Sequence[int],
    reads: Collection[str],
) -> Evidence:
    """Gather the evidence of B prompts, padded at the end of each row.

    Args:
        images: the image of each prompt; the same one may be there more than once.
        texts: (T, D) input embeddings of the text behind each image placeholder.
        spans: which of these text tokens are the question's own, as in `Prompt.question_span`, or, of several
            questions in a row, each one's first and end; all count as such where that leaves none.
        seeds: for pruners that draw.
        reads: of `text`, `tokens`, `features`, `keys`: what the pruner looks at; the rest is left empty.

    Raises:
        InputError: keys of an image that was encoded without.
    """
    keyed = [image.keys if "keys" in reads else image.features[:, :0] for image in images]
    if any(keys is None for keys in keyed):
        raise InputError("an image was encoded without the keys that the pruner reads", "encode it for this pruner")
    texts = [text if "text" in reads else text[:0] for text in texts]
    saliency = _padded([image.saliency for image in images])
    cosine = saliency.new_zeros(len(images), max(map(len, texts)), saliency.shape[1])
    similarity, question = torch.zeros_like(cosine), torch.zeros_like(cosine[..., 0], dtype=torch.bool)
    shared = _rows_of_each(images)
    for rows in shared.values():
        image = images[rows[0]]
        visual = padded_unit_rows(image.tokens if "text" in reads else image.tokens[:0])
        for row in rows:
            text, span = texts[row], spans[row]
            if not len(text):
                continue
            matched = cosines(text, visual)[:, : image.visual]
            cosine[row, : len(text), : image.visual] = matched
            similarity[row, : len(text), : image.visual] = text_to_image(matched)
            for first, end in zip(span[::2], span[1::2], strict=True):
                question[row, slice(first, end) if first < end else slice(len(text))] = True
    return Evidence(
        saliency=saliency,
        cosine=cosine,
        similarity=similarity,
        question_mask=question,
        tokens=_padded([image.tokens if "tokens" in reads else image.tokens[:, :0] for image in images]),
        features=_padded([image.features if "features" in reads else image.features[:, :0] for image in images]),
        keys=_padded([keys for keys in keyed if keys is not None]),
        valid=_padded([torch.ones_like(image.candidates, dtype=torch.bool) for image in images]),
        crop=_padded([image.crop for image in images]),
        cell=_padded([image.cell for image in images]),
        text_lengths=tuple(map(len, texts)),
        num_crops=tuple(image.crops for image in images),
        grids=tuple(image.grids for image in images),
        seeds=tuple(seeds),
        cosines=tuple(image.cosines if len(shared[id(image)]) > 1 else None for image in images),
    )


def _rows_of_each(images: Sequence[ImageEncoding]) -> dict[int, list[int]]:
    """Find the rows of each image: the same object, however often it is there."""
    rows: dict[int, list[int]] = {}
    for row, image in enumerate(images):
        rows.setdefault(id(image), []).append(row)
    return rows


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)
