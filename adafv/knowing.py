"""Gathers the questions that are known about each image, for a choice of tokens that they make together."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from dataclasses import replace

from adafv.records import Answer, Question

MOST = 64  # questions that choose together: of an image with more, each so many in a row; bounds what a choice reads
_MOST_LETTERS = 2**30


class Known:
    """Texts of questions by the image that they are about, each once, in the order in which they came.

    They are held in memory, which is bounded by `full`.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, list[dict[str, None]]] = {}
        self._letters = 0

    def add(self, image: Hashable, text: str) -> None:
        """Take in a question about an image, by whatever names it."""
        groups = self._groups.setdefault(image, [{}])
        if any(text in group for group in groups):
            return
        if len(groups[-1]) == MOST:
            groups.append({})
        groups[-1][text] = None
        self._letters += len(text)

    def of(self, image: Hashable, text: str) -> tuple[str, ...]:
        """List the questions that choose with this one, itself among them."""
        groups = self._groups.get(image, [])
        return next((tuple(group) for group in groups if text in group), (text,))

    @property
    def full(self) -> bool:
        """Whether the texts have as many letters as may be held."""
        return self._letters > _MOST_LETTERS


def together(items: Iterable[Question | Answer]) -> list[Question | Answer]:
    """Read all questions, and let each know of the others about its image, but for those that know already."""
    read, known = list(items), Known()
    for item in read:
        if isinstance(item, Question):
            known.add(_image(item), item.text)
    return [
        item if isinstance(item, Answer) or item.known else replace(item, known=known.of(_image(item), item.text))
        for item in read
    ]


def _image(question: Question) -> Hashable:
    """Name an image: by its path, its bytes, or as the object that it is."""
    image = question.image
    if isinstance(image, str | os.PathLike):
        return os.path.normpath(os.fsdecode(image))
    return image if isinstance(image, bytes) else id(image)
