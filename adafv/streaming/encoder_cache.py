"""Caches encoded images by content, so that each is encoded once for all questions that come while it is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adafv.encoding import ImageEncoding, Pixels, tower_groups
from adafv.pipeline import Pipeline
from adafv.prompt import Prompt
from adafv.request import EncodingCost
from adafv.settings import RunSettings
from adafv.streaming.encoding_store import EncodingStore
from adafv.streaming.recent import Recent
from adafv.tiled import View
from adafv.timing import Stopwatch


@dataclass(frozen=True)
class Loaded:
    """An image ready for the vision tower, and the seconds it took to get there."""

    pixels: Pixels
    seconds: float


class EncoderCache:
    """Encodes images in groups, keeps their encodings, and charges each setting for an image once.

    The encodings kept are bounded in bytes, the least recently used leaves first; one larger than the bound on its
    own is not kept. Where there is a store, encodings come from it, too, and go into it; those that do are charged to
    nobody.

    Args:
        pipeline: of the loaded checkpoint.
        limit_bytes: of all encodings together.
        runs: settings of the sweep. Each is charged an image's encoding once, as if it had run alone.
        store: of encodings on disk.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        limit_bytes: int,
        runs: Sequence[RunSettings] = (),
        store: EncodingStore | None = None,
    ) -> None:
        self._pipeline, self._runs, self._store = pipeline, tuple(runs), store
        self.encoded = 0
        self._encodings: Recent[ImageEncoding] = Recent(limit_bytes)
        self._uncharged: dict[str, dict[RunSettings, EncodingCost]] = {}

    def __contains__(self, key: str) -> bool:
        """Tell whether the image of that content key is encoded; may be asked from any thread."""
        return key in self._encodings or (self._store is not None and key in self._store)

    def get(self, key: str) -> ImageEncoding | None:
        """Look up the encoding under that content key, and mark it as the most recently used."""
        encoding = self._encodings.get(key)
        if encoding is None and self._store is not None and (encoding := self._store.load(key)) is not None:
            self._encodings.keep(key, encoding)
        return encoding

    def encode(self, images: Mapping[str, Loaded]) -> dict[str, ImageEncoding]:
        """Encode images that are not in the cache, by content key."""
        encoded: dict[str, ImageEncoding] = {}
        for group in tower_groups((key, len(loaded.pixels.values)) for key, loaded in images.items()):
            watch = Stopwatch(self._pipeline.devices)
            encodings = self._pipeline.encode([images[key].pixels for key in group], watch, self._runs)
            self.encoded += len(group)
            for key, encoding in zip(group, encodings, strict=True):
                encoded[key] = encoding
                cost = EncodingCost(images[key].seconds, watch["vision"] / len(group))
                self._uncharged[key] = dict.fromkeys(self._runs, cost)
                self._encodings.keep(key, encoding)
                if self._store is not None:
                    self._store.save(key, encoding)
        return encoded

    def let_go(self) -> bool:
        """Drop all encodings, for their memory; tells whether there were any. What they cost stays charged."""
        return self._encodings.clear()

    def tokens(self, key: str) -> tuple[int, int] | None:
        """Count an image's candidates and all its tokens without reading its encoding; `None` where it has none."""
        encoding = self._encodings.peek(key)
        if encoding is not None:
            return encoding.visual, encoding.packed.shape[0]
        return None if self._store is None else self._store.tokens(key)

    @property
    def stored(self) -> tuple[int, int]:
        """Count the encodings read from the store, and the bytes written to it."""
        return (self._store.read, self._store.bytes_written) if self._store is not None else (0, 0)

    def views(
        self, asked: Sequence[tuple[ImageEncoding, Prompt, Sequence[RunSettings]]]
    ) -> list[dict[RunSettings, View]]:
        """Show images to questions, as whole as they are, under every run."""
        return [dict.fromkeys(runs, View(encoding)) for encoding, _, runs in asked]

    def charge(self, key: str, run: RunSettings, view: View | None = None) -> EncodingCost | None:
        """Take the image's encoding cost: once per run, for the first question answered with it; then `None`."""
        costs = self._uncharged.get(key, {})
        cost = costs.pop(run, None)
        if not costs:
            self._uncharged.pop(key, None)
        return cost

    def refund(self, key: str, run: RunSettings, cost: EncodingCost, view: View | None = None) -> None:
        """Undo a charge whose question failed; the next question about the image is charged instead."""
        self._uncharged.setdefault(key, {})[run] = cost
