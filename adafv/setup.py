"""How a question is put to the model beside its budget and pruner: what the published tables settle by protocol."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOLS = ("published",)
PUBLISHED_BY_CROP = (
    "cdpruner",
    "scope",
    "mmtok",
    "visionzip",
)  # pruners whose tables were made with a budget for each crop


@dataclass(frozen=True)
class Setup:
    """How an answer was asked for, where that is not the default.

    Args:
        protocol: one of `PROTOCOLS`, `None` where everything was chosen one by one.
        pad: whether the image was padded to a square.
        system: the system text by its name, or itself; `None` where that is the chat template's own affair.
        crop_budget: `joint`, or `each` where every crop had a budget of its own.
        tiles: which tiles of an image were encoded: `all`, a number, or `auto`.
    """

    protocol: str | None = None
    pad: bool = False
    system: str | None = None
    crop_budget: str = "joint"
    tiles: str = "all"
