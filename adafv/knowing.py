"""Gathers the questions that are known about each image, for a choice of tokens that they make together."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import TypeVar

from adafv.errors import ImageError
from adafv.records import Answer, Question

MOST = 64  # questions that choose together: of an image with more, each so many in a row; bounds what a choice reads
_MOST_BYTES = 2**32
_AROUND = 200  # bytes that a text takes besides its letters, about

_Item = TypeVar("_Item", bound=Question | Answer)


class Known:
    """Texts of questions by the image that they are about, each once, in the order in which they came.

    They are held in memory, which is bounded by `full`.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, dict[str, list[str]]] = {}  # of each text, those that it is known with
        self._bytes = 0

    def add(self, image: Hashable, text: str) -> None:
        """Take in a question about an image, by whatever names it."""
        groups = self._groups.setdefault(image, {})
        if text in groups:
            return
        group = groups[next(reversed(groups))] if groups else []
        group = [] if len(group) == MOST else group
        group.append(text)
        groups[text] = group
        self._bytes += len(text) + _AROUND

    def of(self, image: Hashable, text: str) -> tuple[str, ...]:
        """List the questions that choose with this one, itself among them."""
        return tuple(self._groups.get(image, {}).get(text, (text,)))

    @property
    def full(self) -> bool:
        """Whether the texts take as much memory as they may."""
        return self._bytes > _MOST_BYTES


def together(items: Iterable[_Item]) -> list[_Item]:
    """Read all questions, and let each know of the others about its image, but for those that know already."""
    read, known = list(items), Known()
    images = [_image(item) if isinstance(item, Question) else None for item in read]
    for item, image in zip(read, images, strict=True):
        if isinstance(item, Question):
            known.add(image, item.text)
    return [
        item if isinstance(item, Answer) or item.known else replace(item, known=known.of(image, item.text))
        for item, image in zip(read, images, strict=True)
    ]


def _image(question: Question) -> Hashable:
    """Name an image: by its path, its bytes, or its pixels, since `datasets` makes an object of it for each row."""
    from adafv.images import content_key

    image = question.image
    if isinstance(image, str | os.PathLike):
        return os.path.normpath(os.fsdecode(image))
    if isinstance(image, bytes):
        return image
    try:
        return content_key(image)
    except ImageError:  # which is said when it is asked about
        return id(image)
