"""What is written in the picture of an explanation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adafv.figures.rasters import BOTH, DROPPED, KEPT, MERGED, SALIENCY, SIMILARITY, UNSEEN, Colour
from adafv.figures.texts import readable, shortened, width_of, wrapped

if TYPE_CHECKING:
    from adafv.explanation import Explanation, VisualToken

_LINES = 8  # of a question, or an answer, at most
_WORDS = 4  # that are named at most
_SEVERAL = 2  # tokens that make an area
_BETWEEN = " \u00b7 "


@dataclass(frozen=True)
class Sizes:
    """Sizes of letters, in points."""

    question: float = 10.0
    answer: float = 8.5
    title: float = 7.5
    small: float = 6.5


def header(explanation: Explanation, width: float, sizes: Sizes) -> list[tuple[str, float, bool]]:
    """Question, answer and settings: lines of at most `width` points, their size, and whether they are pale."""
    answer, tokens = explanation.answer, explanation.answer.tokens
    lines = [(line, sizes.question, False) for line in wrapped(answer.prompt, width, sizes.question, _LINES)]
    lines += [(line, sizes.answer, False) for line in wrapped(f"answer: {answer.text}", width, sizes.answer, _LINES)]
    facts = f"{answer.model_id}, pruner {answer.pruner}"
    if tokens is not None:
        facts += f", {tokens.kept} of {tokens.visual} visual tokens kept ({tokens.kept / tokens.visual:.0%})"
    return [*lines, (shortened(readable(facts), width, sizes.title), sizes.title, True)]


def saliency_note(explanation: Explanation) -> str:
    """Say what saliency is there, and how it is drawn."""
    return f"{explanation.saliency}; square-root scale"


def titles(explanation: Explanation, layer: int) -> list[str]:
    """Name the panels of one layer."""
    numbers = explanation.layers[layer]
    kept = f"{sum(explanation.tokens[number].kept for number in numbers)} of {len(numbers)}"
    setup = explanation.answer.setup
    padded = "padded to " if setup is not None and setup.pad else ""
    image = f"image, {padded}{explanation.image.width} \u00d7 {explanation.image.height}"
    if len(explanation.grids) == 1 and len(explanation.crops) == 1:
        return [image, "saliency", "similarity", f"kept: {kept}"]
    tiles, encoded = len(explanation.crops) - 1, sum(crop.encoded for crop in explanation.crops[1:])
    named = f"tiles: crops 1 to {tiles}" if tiles > 1 else "tile: crop 1"
    first, part = ((image, "thumbnail"), (named if encoded == tiles else f"{encoded} of {tiles} tiles", "tiles"))[layer]
    return [first, f"saliency, {part}", f"similarity, {part}", f"kept of the {part}: {kept}"]


def best_words(explanation: Explanation, width: float, size: float) -> str:
    """List the question's best matching own words with their similarities, each once, as many as fit."""
    best: dict[str, float] = {}
    for word in explanation.words:
        if word.own and word.text:
            best[word.text.casefold()] = max(word.similarity, best.get(word.text.casefold(), 0.0))
    own = sorted(best.items(), key=lambda item: -item[1])[:_WORDS]
    named = [f"{readable(text)} {number(similarity)}" for text, similarity in own]
    while len(named) > 1 and width_of(_BETWEEN.join(named), size) > width:
        named.pop()
    return shortened(_BETWEEN.join(named), width, size)


def number(value: float) -> str:
    """Write a score with two digits."""
    return f"{value:#.2g}" if value else "0"


def areas(explanation: Explanation) -> list[int | None]:
    """Number for each token the merged area that it is in: that of the kept token; `None` where it is on its own."""
    sizes = Counter(token.into for token in explanation.tokens)
    return [None if token.into is None or sizes[token.into] < _SEVERAL else token.into for token in explanation.tokens]


def colours(explanation: Explanation) -> list[Colour | None]:
    """Choose the colour of each token: of the signal that chose it, or that of merged ones; `None` when dropped."""
    tokens = zip(explanation.tokens, areas(explanation), strict=True)
    return [_colour(token) if area is None else MERGED for token, area in tokens]


def _colour(token: VisualToken) -> Colour | None:
    if not token.kept:
        return None
    if token.by_saliency and token.by_similarity:
        return BOTH
    return SALIENCY if token.by_saliency else SIMILARITY if token.by_similarity else KEPT


def legend(explanation: Explanation, unseen: bool) -> Sequence[tuple[Colour, str]]:
    """Colours and what they stand for; `unseen` says whether tokens leave some of the image out."""
    counts, merged = Counter(colours(explanation)), set(areas(explanation)) - {None}
    names = {SALIENCY: "saliency", SIMILARITY: "similarity", BOTH: "both"} if explanation.has_split else {KEPT: "kept"}
    entries = [(known, f"{name} {counts[known]}") for known, name in names.items() if counts[known] or not merged]
    if merged:
        entries.append((MERGED, f"{counts[MERGED]} merged into {len(merged)}"))
    entries.append((DROPPED, f"dropped {counts[None]}"))
    return [*entries, (UNSEEN, "not seen")] if unseen else entries
