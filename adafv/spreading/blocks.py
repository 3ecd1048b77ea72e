"""Blocks of questions for actors: read ahead, questions about one image together; and their answers, back in order."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from adafv.records import Answer
from adafv.streaming.runs import Asked

AHEAD = 16_384
"""Lines that are read and not delivered at most; questions on one image that are so near each other are one block's."""


@dataclass
class Block:
    """Questions that one actor answers together.

    Args:
        numbers: their places in the input.
        items: what is asked.
        deaths: of actors that were at it.
    """

    numbers: list[int] = field(default_factory=list)
    items: list[Asked] = field(default_factory=list)
    deaths: int = 0

    def apart(self) -> list[Block]:
        """Make a block of each question."""
        return [Block([number], [item]) for number, item in zip(self.numbers, self.items, strict=True)]


class Blocks:
    """Reads items in a thread, gives them out in blocks, and takes the answers; all else is for one other thread.

    Args:
        items: questions; lists of answers are passed through in their place.
        ahead: items in flight at most.
    """

    def __init__(self, items: Iterable[Asked | Sequence[Answer]], ahead: int = AHEAD) -> None:
        self._items = items
        self._room = threading.Semaphore(ahead)
        self._lock = threading.Lock()
        self._groups: dict[Hashable, Block] = {}  # by image, in the order in which they came
        self._again: list[Block] = []
        self._answers: dict[int, Sequence[Answer]] = {}
        self._next = self._read = 0
        self._ended = self._closed = False
        self._error: BaseException | None = None
        threading.Thread(target=self._feed, name="adafv-blocks", daemon=True).start()

    def take(self, lines: int) -> Block | None:
        """Take a block: all there is about the oldest images, until there are enough lines; `None` for nothing yet."""
        if self._again:
            return self._again.pop(0)
        with self._lock:
            taken = Block()
            while self._groups and len(taken.items) < lines:
                group = self._groups.pop(next(iter(self._groups)))
                taken.numbers += group.numbers
                taken.items += group.items
        return taken if taken.items else None

    def put_back(self, blocks: Iterable[Block]) -> None:
        """Give out again what was not answered, before everything else."""
        self._again[:0] = blocks

    def answer(self, number: int, answers: Sequence[Answer]) -> None:
        """Fill the place of an item."""
        with self._lock:
            self._answers[number] = answers

    def pop(self) -> list[Answer] | None:
        """Take the answers of the next item in order, where they are there."""
        with self._lock:
            found = self._answers.pop(self._next, None)
        if found is None:
            return None
        self._next += 1
        self._room.release()
        return list(found)

    def drained(self) -> bool:
        """Tell whether the input has ended and all was delivered; raises what reading the input raised."""
        with self._lock:
            left = self._next < self._read or not self._ended
        if not left and self._error is not None:
            raise self._error
        return not left

    def close(self) -> None:
        """End the reading."""
        self._closed = True
        self._room.release()

    def _feed(self) -> None:
        try:
            for number, item in enumerate(self._items):
                self._room.acquire()
                if self._closed:
                    return
                with self._lock:
                    self._read = number + 1
                    if isinstance(item, Asked):
                        group = self._groups.setdefault(_image(item), Block())
                        group.numbers.append(number)
                        group.items.append(item)
                    else:
                        self._answers[number] = item
        except BaseException as error:
            self._error = error
        finally:
            with self._lock:
                self._ended = True


def _image(item: Asked) -> Hashable:
    image = item.question.image
    return image if isinstance(image, str | bytes) else id(image)
