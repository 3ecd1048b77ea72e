"""Explains an answer that was given: scores, places and fates of its visual tokens, for `Explanation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from adafv.choosing import Kept
from adafv.explanation import Crop, Explanation, VisualToken, Word
from adafv.pipeline import Pipeline
from adafv.records import Answer
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.words import words_of


def explain(
    pipeline: Pipeline,
    processor: Any,
    image: Image.Image,
    request: Request,
    kept: Kept,
    answer: Answer,
    run: RunSettings,
) -> Explanation:
    """Explain an answer that was given.

    Args:
        pipeline: that gave it.
        processor: the checkpoint's.
        image: upright.
        request: that it answers.
        kept: what was answered with.
        answer: its report.
        run: what it was answered under.

    Raises:
        InputError: similarity that is not finite.
    """
    pixels, encoding = pipeline.preprocess(image, run), request.image
    similarity = pipeline.scores(request).similarity[0]
    frames = pipeline.stages.frames(pixels.size, pixels.padded)
    texts, owners = words_of(processor.tokenizer, request.prompt.after)
    similar, matching = (values.tolist() for values in similarity.max(dim=0))
    boxes = pipeline.stages.boxes(pixels.size, encoding, pixels.padded)
    crops = [encoding.numbers[crop] for crop in encoding.crop.tolist()]
    places = zip(crops, encoding.cell.tolist(), boxes, strict=True)
    scored = zip(encoding.saliency.tolist(), similar, (owners[token] for token in matching), strict=True)
    fates = zip(*(_fates(encoding.candidates, kept)), strict=True)
    return Explanation(
        answer=answer,
        image=image,
        crops=tuple(
            Crop(picture, frame, encoded=number in encoding.numbers)
            for number, (picture, frame) in enumerate(
                zip(_pictures(pixels.values, processor.image_processor), frames, strict=True)
            )
        ),
        grids=encoding.grids,
        tokens=tuple(
            VisualToken(*place, *score, *fate) for place, score, fate in zip(places, scored, fates, strict=True)
        ),
        words=_words(texts, owners, request.prompt.question_span, similarity.amax(dim=1).tolist()),
        saliency=pipeline.stages.saliency,
        square=pipeline.stages.square(image) if pixels.padded else None,
    )


def _words(
    texts: Sequence[str], owners: Sequence[int], own: tuple[int, int], reached: Sequence[float]
) -> tuple[Word, ...]:
    """Make words of the scores of their tokens."""
    asked, best = set(owners[slice(*own)]), [0.0] * len(texts)
    for owner, score in zip(owners, reached, strict=True):
        best[owner] = max(best[owner], score)
    return tuple(
        Word(text, number in asked, score) for number, (text, score) in enumerate(zip(texts, best, strict=True))
    )


def _fates(candidates: Tensor, kept: Kept) -> Iterator[list[Any]]:
    """Tell of all candidates whether they are kept, by which signals, and where they went. Newlines are none."""
    stays = torch.isin(candidates, kept.places).tolist()
    yield stays
    for mask in (kept.by_saliency, kept.by_similarity):
        yield (
            [None] * len(candidates)
            if mask is None
            else torch.isin(candidates, kept.places[mask.to(kept.places.device)]).tolist()
        )
    if kept.into is None or kept.shares is None:
        yield [number if stay else None for number, stay in enumerate(stays)]
        yield [float(stay) for stay in stays]
    else:
        yield [None if place < 0 else place for place in kept.into.tolist()]
        yield kept.shares.tolist()


def _pictures(values: Tensor, processor: Any) -> list[Image.Image]:
    """Turn (crops, 3, H, W) pixels, as the vision tower takes them, into pictures."""
    if processor.do_normalize:
        mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (processor.image_mean, processor.image_std))
        values = values * std + mean
    if processor.do_rescale:
        values = values / processor.rescale_factor
    colours = values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return [Image.fromarray(crop.numpy()) for crop in colours]
