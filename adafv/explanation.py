"""What happened to one image under one question: every visual token with its place, its scores and its fate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from adafv.families.geometry import Box, Frame
from adafv.notebook import explanation_html
from adafv.records import Answer

_DPI = 120  # of the picture in a notebook


@dataclass(frozen=True)
class VisualToken:
    """A candidate of the image.

    Args:
        crop: the crop it comes from; of a token that was interpolated from several patches, the crop under its middle.
        cell: its place in the patch grid of that crop, row by row; of such a token, the patch under its middle.
        box: (left, top, right, bottom), what it shows of the upright image, in pixels of that image; `None` where it
            shows nothing but padding.
        saliency: attention of the crop's [CLS], or received from the crop's patches where there is none.
        similarity: to its best text token behind the image, `t_i = max_j S_ji`.
        word: number of the word which that text token belongs to.
        kept: whether the language model saw it.
        by_saliency, by_similarity: which signal chose it, both where both did; `None` where the pruner does not say.
        into: number of the kept token in whose mean the language model saw it; its own where it is kept, `None` where
            it was left out.
        share: what of that mean it is, from 0 to 1.
    """

    crop: int
    cell: int
    box: Box | None
    saliency: float
    similarity: float
    word: int
    kept: bool
    by_saliency: bool | None
    by_similarity: bool | None
    into: int | None = None
    share: float = 0.0


@dataclass(frozen=True)
class Word:
    """A word of the prompt behind the image.

    Args:
        text: as it reads.
        own: whether it is the question's own: neither the template's nor a customary instruction's.
        similarity: its greatest to any visual token.
    """

    text: str
    own: bool
    similarity: float


@dataclass(frozen=True)
class Crop:
    """What the vision tower saw.

    Args:
        picture: its pixels, normalisation undone.
        frame: where it lies in the image.
        encoded: false of a tile that was skipped.
    """

    picture: Image.Image
    frame: Frame
    encoded: bool = True


@dataclass(frozen=True)
class Explanation:
    """One answer, and what the pruner made of the image for it.

    Args:
        answer: with its report.
        image: upright, as it was opened.
        crops: what was made of it.
        grids: (rows, columns) of the token grids that cover the image, one over the other: one for LLaVA-1.5; for
            LLaVA-NeXT and LLaVA-OneVision the thumbnail's, then that of the tiles, in bands where some were skipped.
        tokens: in the order of the grids, row by row.
        words: of the prompt behind the image, in order.
        saliency: what the tokens' is: `attention of [CLS]`, or `attention received` where the tower has no [CLS].
        square: the image padded to a square, where it was.
    """

    answer: Answer
    image: Image.Image
    crops: tuple[Crop, ...]
    grids: tuple[tuple[int, int], ...]
    tokens: tuple[VisualToken, ...]
    words: tuple[Word, ...]
    saliency: str
    square: Image.Image | None = None

    @property
    def layers(self) -> list[range]:
        """Numbers of the tokens of the first grid, and of those of all others, which lie side by side."""
        first = math.prod(self.grids[0])
        return [range(first), range(first, len(self.tokens))] if len(self.grids) > 1 else [range(first)]

    def padded(self) -> Explanation:
        """Explain in terms of the padded image, padding and all; itself where nothing was padded."""
        if self.square is None:
            return self
        side, (crop,) = self.square.width, self.crops
        left, top = (side - self.image.width) // 2, (side - self.image.height) // 2
        frame = crop.frame.moved(left, top, side)
        patch = frame.width // self.grids[0][1]
        boxes = (frame.cell(token.cell, self.grids[0][1], patch) for token in self.tokens)
        tokens = tuple(replace(token, box=box) for token, box in zip(self.tokens, boxes, strict=True))
        crops = (replace(crop, frame=frame),)
        return replace(self, image=self.square, square=None, crops=crops, tokens=tokens)

    @property
    def has_split(self) -> bool:
        """Whether the pruner says which signal chose a token."""
        return any(token.by_saliency is not None for token in self.tokens)

    def to_json(self) -> dict[str, Any]:
        """Extend the answer's JSON object: the size in `image`; `crops`, `grids`, `words`, `visual_tokens`.

        The values of `visual_tokens` are arrays with one entry for each token.
        """
        tokens, answer = self.tokens, self.answer.to_json()
        return answer | {
            "image": (answer["image"] or {}) | {"width": self.image.width, "height": self.image.height},
            "crops": [{"box": _rounded(crop.frame.seen), "encoded": crop.encoded} for crop in self.crops],
            "grids": [list(grid) for grid in self.grids],
            "words": [
                {"text": word.text, "own": word.own, "similarity": _short(word.similarity)} for word in self.words
            ],
            "visual_tokens": {
                "crop": [token.crop for token in tokens],
                "cell": [token.cell for token in tokens],
                "box": [_rounded(token.box) for token in tokens],
                "saliency": [_short(token.saliency) for token in tokens],
                "similarity": [_short(token.similarity) for token in tokens],
                "word": [token.word for token in tokens],
                "kept": [token.kept for token in tokens],
                "by_saliency": [token.by_saliency for token in tokens],
                "by_similarity": [token.by_similarity for token in tokens],
                "into": [token.into for token in tokens],
                "share": [_short(token.share) for token in tokens],
            },
        }

    def _repr_html_(self) -> str:
        """Show itself in a notebook, with its picture."""
        from adafv.figures.explanation import render

        return explanation_html(self.answer, render(self, dpi=_DPI))


def _short(value: float) -> float:
    """Six digits, which is what float32 holds."""
    return float(f"{value:.6g}")


def _rounded(box: Sequence[float] | None) -> list[float] | None:
    return None if box is None else [round(value, 2) for value in box]
