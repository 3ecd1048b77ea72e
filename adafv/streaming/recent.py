"""Holds what was used most recently, as much as fits into a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def bytes(self) -> int:
        """Memory that it takes."""


_Held = TypeVar("_Held", bound=_Sized)


class Recent(Generic[_Held]):
    """Things by key, of which the least recently used leaves first; one larger than the bound on its own is not held.

    Args:
        limit_bytes: of all of them together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._bytes = limit_bytes, 0
        self._held: OrderedDict[str, tuple[_Held, int]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        """Tell whether something is held under a key; may be asked from any thread."""
        return key in self._held

    def peek(self, key: str) -> _Held | None:
        """Look up what is held under a key, and leave its turn as it is."""
        found = self._held.get(key)
        return None if found is None else found[0]

    def get(self, key: str) -> _Held | None:
        """Look up what is held under a key, and mark it as the most recently used."""
        if key in self._held:
            self._held.move_to_end(key)
        return self.peek(key)

    def keep(self, key: str, thing: _Held) -> None:
        """Hold something, which may have grown since it was last kept."""
        _, before = self._held.pop(key, (thing, 0))
        self._bytes -= before
        size = thing.bytes
        if size > self._limit:
            return
        self._held[key] = thing, size
        self._bytes += size
        while self._bytes > self._limit:
            _, (_, least) = self._held.popitem(last=False)
            self._bytes -= least

    def clear(self) -> bool:
        """Let go of everything; tells whether there was anything."""
        held = bool(self._held)
        self._held.clear()
        self._bytes = 0
        return held
