"""Encoded images by content, so that each is encoded once; bounded in bytes, the least recently used leaves first."""

from __future__ import annotations

from collections import OrderedDict

from adafv.llava import ImageEncoding


class EncodingCache:
    """A least-recently-used cache of image encodings.

    Args:
        limit_bytes: of all encodings together; one that is larger on its own is not held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[str, ImageEncoding] = OrderedDict()
        self.bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._held

    def get(self, key: str) -> ImageEncoding | None:
        """The encoding under that content key, now the most recently used."""
        encoding = self._held.get(key)
        if encoding is not None:
            self._held.move_to_end(key)
        return encoding

    def put(self, key: str, encoding: ImageEncoding) -> None:
        """Hold an encoding, and let go of others until everything fits."""
        if key in self._held:
            return
        self._held[key] = encoding
        self.bytes += encoding.bytes
        while self.bytes > self._limit and self._held:
            _, oldest = self._held.popitem(last=False)
            self.bytes -= oldest.bytes
