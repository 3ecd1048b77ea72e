"""Encoded images by content, so that each is encoded once however its questions are spread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adafv.families.llava import ImageEncoding, Pixels
from adafv.pipeline import Pipeline
from adafv.settings import RunSettings
from adafv.timing import Stopwatch

_CROPS_AT_ONCE = 8  # enough to fill a device; more only takes more memory


@dataclass(frozen=True)
class EncodingCost:
    """Seconds for one image; of images encoded together, `vision_s` is this one's share."""

    preprocess_s: float
    vision_s: float


@dataclass(frozen=True)
class Loaded:
    """An image ready for the vision tower, and the seconds it took to get there."""

    pixels: Pixels
    seconds: float


class Encoder:
    """Encodes images in groups, and holds on to what it made.

    What is held is bounded in bytes, the least recently used leaves first; an encoding larger than that on its own
    is not held.

    Args:
        pipeline: of the loaded checkpoint.
        limit_bytes: of all encodings together.
        runs: what is billed for an image: each of them as if it had been encoded for that one alone.
    """

    def __init__(self, pipeline: Pipeline, limit_bytes: int, runs: Sequence[RunSettings] = ()) -> None:
        self._pipeline, self._limit, self._runs = pipeline, limit_bytes, tuple(runs)
        self._held: OrderedDict[str, ImageEncoding] = OrderedDict()
        self._bytes = 0
        self._unbilled: dict[str, dict[RunSettings, EncodingCost]] = {}

    def holds(self, key: str) -> bool:
        """Whether an image of that content key is held; may be asked from any thread."""
        return key in self._held

    def held(self, key: str) -> ImageEncoding | None:
        """The encoding under that content key, now the most recently used."""
        encoding = self._held.get(key)
        if encoding is not None:
            self._held.move_to_end(key)
        return encoding

    def encode(self, images: Mapping[str, Loaded]) -> dict[str, ImageEncoding]:
        """Encode images that are not held, by content key."""
        encoded: dict[str, ImageEncoding] = {}
        for group in _groups(images):
            watch = Stopwatch(self._pipeline.devices)
            encodings = self._pipeline.encode([images[key].pixels for key in group], watch)
            for key, encoding in zip(group, encodings, strict=True):
                encoded[key] = encoding
                cost = EncodingCost(images[key].seconds, watch["vision"] / len(group))
                self._unbilled[key] = dict.fromkeys(self._runs, cost)
                self._hold(key, encoding)
        return encoded

    def bill(self, key: str, run: RunSettings) -> EncodingCost | None:
        """What encoding that image took, said once to each run: with the first question that is answered with it."""
        bills = self._unbilled.get(key, {})
        cost = bills.pop(run, None)
        if not bills:
            self._unbilled.pop(key, None)
        return cost

    def owe(self, key: str, run: RunSettings, cost: EncodingCost) -> None:
        """Take back a bill whose question was not answered: the next one about that image gets it."""
        self._unbilled.setdefault(key, {})[run] = cost

    def _hold(self, key: str, encoding: ImageEncoding) -> None:
        if encoding.bytes > self._limit:
            return
        self._held[key] = encoding
        self._bytes += encoding.bytes
        while self._bytes > self._limit:
            _, oldest = self._held.popitem(last=False)
            self._bytes -= oldest.bytes


def _groups(images: Mapping[str, Loaded]) -> Iterator[list[str]]:
    """Keys of images that go through the vision tower together."""
    group: list[str] = []
    crops = 0
    for key, loaded in images.items():
        more = len(loaded.pixels.values)
        if group and crops + more > _CROPS_AT_ONCE:
            yield group
            group, crops = [], 0
        group.append(key)
        crops += more
    if group:
        yield group
