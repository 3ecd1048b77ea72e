"""Caches images tile by tile: the thumbnail first, then the tiles that some question wants, whenever that comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adafv.pipeline import Pipeline
from adafv.prompt import Prompt
from adafv.request import EncodingCost
from adafv.settings import RunSettings
from adafv.streaming.encoder_cache import Loaded
from adafv.streaming.encoding_store import EncodingStore
from adafv.streaming.recent import Recent
from adafv.tiled import Tiled, View
from adafv.tiling import Tiling


class TileCache:
    """An `ImageCache` whose images grow. What a question sees is what it wants, whatever others had encoded before.

    Pixels are held with an image, for tiles that are wanted later. In a store each crop is kept on its own, so that
    images are always read; only a tower's work is spared.

    Args:
        pipeline: of the loaded checkpoint.
        limit_bytes: of all images together.
        runs: settings of the sweep. Each is charged a crop's encoding once, as if it had run alone.
        store: of encodings on disk.
    """

    def __init__(
        self, pipeline: Pipeline, limit_bytes: int, runs: Sequence[RunSettings], store: EncodingStore | None = None
    ) -> None:
        self._pipeline, self._store, self._tiling = pipeline, store, Tiling(pipeline, runs, store)
        self._images: Recent[Tiled] = Recent(limit_bytes)
        self.encoded = 0

    def __contains__(self, key: str) -> bool:
        """Tell whether the image of that content key is held; may be asked from any thread."""
        return key in self._images

    def get(self, key: str) -> Tiled | None:
        """Look up an image, and mark it as the most recently used."""
        return self._images.get(key)

    def encode(self, images: Mapping[str, Loaded]) -> dict[str, Tiled]:
        """Take images that are not held, by content key; nothing of them is encoded before somebody looks."""
        return {key: Tiled(key, loaded.pixels, loaded.seconds) for key, loaded in images.items()}

    def views(self, asked: Sequence[tuple[Tiled, Prompt, Sequence[RunSettings]]]) -> list[dict[RunSettings, View]]:
        """Encode what questions want of their images, and show it to them; raises as `Tiling.views`."""
        unseen = {id(tiled): tiled for tiled, _, _ in asked if not tiled.seconds}
        try:
            return self._tiling.views(asked)
        finally:
            self.encoded += sum(bool(tiled.seconds) for tiled in unseen.values())
            for tiled, _, _ in asked:
                self._images.keep(tiled.key, tiled)

    def let_go(self) -> bool:
        """Drop all images, for their memory; tells whether there were any."""
        return self._images.clear()

    def tokens(self, key: str) -> tuple[int, int] | None:
        """Count the candidates and all tokens that an image would have with all tiles; `None` where it is not held."""
        tiled = self._images.peek(key)
        if tiled is None:
            return None
        plan = self._pipeline.plan(tiled.pixels)
        return plan.visual, plan.packed

    @property
    def stored(self) -> tuple[int, int]:
        """Count the crops read from the store, and the bytes written to it."""
        return (self._store.read, self._store.bytes_written) if self._store is not None else (0, 0)

    def charge(self, _key: str, run: RunSettings, view: View) -> EncodingCost | None:
        """Take what encoding the crops of a view cost, those that the run has not paid for yet."""
        return None if view.tiled is None else view.tiled.charge(run, view.image.numbers)

    def refund(self, _key: str, run: RunSettings, cost: EncodingCost, view: View) -> None:
        """Undo a charge whose question failed; the next question that wants these crops is charged instead."""
        if view.tiled is not None:
            view.tiled.refund(run, cost)
