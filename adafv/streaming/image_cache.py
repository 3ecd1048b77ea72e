"""What a stream needs of a cache of images, whether these are encoded as a whole or tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from adafv.prompt import Prompt
from adafv.request import EncodingCost
from adafv.settings import RunSettings
from adafv.streaming.encoder_cache import Loaded
from adafv.tiled import View


class ImageCache(Protocol):
    """Encodes each image once, and charges each setting for it once. What is held of an image is the cache's affair."""

    def __contains__(self, key: str) -> bool:
        """Tell whether the image of that content key is known, so that its pixels need not be read; from any thread."""

    def get(self, key: str) -> Any:
        """Look up what is held of an image, `None` where that is nothing."""

    def encode(self, images: Mapping[str, Loaded]) -> Mapping[str, Any]:
        """Take images that nothing is held of, by content key."""

    def views(self, asked: Sequence[tuple[Any, Prompt, Sequence[RunSettings]]]) -> list[dict[RunSettings, View]]:
        """Show images to questions, under each run as it wants to see them."""

    def let_go(self) -> bool:
        """Let go of all memory; tell whether there was any."""

    def tokens(self, key: str) -> tuple[int, int] | None:
        """Count an image's candidates and all its tokens, `None` where nothing is known of it."""

    @property
    def encoded(self) -> int:
        """Count the images that went through the vision tower, each whenever nothing was held of it."""

    @property
    def stored(self) -> tuple[int, int]:
        """Count the encodings read from disk, and the bytes written to it."""

    def charge(self, key: str, run: RunSettings, view: View) -> EncodingCost | None:
        """Take what encoding a view of an image cost, as far as the run has not paid for it."""

    def refund(self, key: str, run: RunSettings, cost: EncodingCost, view: View) -> None:
        """Undo a charge whose question failed."""
