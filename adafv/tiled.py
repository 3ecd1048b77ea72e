"""An image whose crops are encoded one by one, as questions want them: what there is of it, and who paid for it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from adafv.encoding import ImageEncoding, Pixels
from adafv.request import EncodingCost


@dataclass(frozen=True)
class View:
    """What a question sees of an image under some settings.

    Args:
        image: encoded, with the crops that the question wants.
        tiled: that these are of; `None` of an image that is encoded as a whole.
        looked_s: as of `Request`.
    """

    image: ImageEncoding
    tiled: Tiled | None = None
    looked_s: float | None = None


class Tiled:
    """An image that is encoded in part, and grows.

    Args:
        key: of its content.
        pixels: of all its crops, which are held for those that are encoded later.
        preprocess_s: seconds that they took.
    """

    def __init__(self, key: str, pixels: Pixels, preprocess_s: float) -> None:
        self.key, self.pixels, self._preprocess_s = key, pixels, preprocess_s
        self.parts: dict[int, ImageEncoding] = {}  # by the numbers of the crops
        self.seconds: dict[int, float] = {}  # that encoding them took, of those that were not read from disk
        # Questions that want the same crops share one encoding as long as any of them has it.
        self.views: WeakValueDictionary[tuple[int, ...], ImageEncoding] = WeakValueDictionary()
        self._charged: dict[Hashable, set[int]] = {}

    @property
    def crops(self) -> int:
        """Count the crops that the image is cut into."""
        return len(self.pixels.values)

    @property
    def bytes(self) -> int:
        """Memory that its pixels and encoded crops take."""
        return self.pixels.values.nbytes + sum(part.bytes for part in self.parts.values())

    def missing(self, crops: Iterable[int]) -> list[int]:
        """List those of some crops that are not encoded yet."""
        return [crop for crop in crops if crop not in self.parts]

    def charge(self, run: Hashable, crops: Iterable[int]) -> EncodingCost | None:
        """Take what encoding `crops` cost, each once for each run; `None` where nothing is left to pay."""
        paid = self._charged.setdefault(run, set())
        due = tuple(crop for crop in crops if crop in self.seconds and crop not in paid)
        if not due:
            return None
        paid.update(due)
        return EncodingCost(self._preprocess_s if 0 in due else 0.0, sum(self.seconds[crop] for crop in due), due)

    def refund(self, run: Hashable, cost: EncodingCost) -> None:
        """Undo a charge whose question failed; the next question that wants these crops is charged instead."""
        self._charged[run] -= set(cost.crops or ())
