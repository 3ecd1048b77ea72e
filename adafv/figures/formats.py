"""The files that figures are saved as, and how one of ours is told from any other picture."""

from __future__ import annotations

FORMATS = ("png", "svg", "pdf")

# Without dates: the bytes would differ from one time to the next.
METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": "adafv"},
    "svg": {"Creator": "adafv", "Date": None},
    "pdf": {"Creator": "adafv", "CreationDate": None},
}
_MARKS = (b"tEXtSoftware\0adafv", b"<dc:title>adafv</dc:title>", b"/Creator (adafv)")


def is_ours(content: bytes) -> bool:
    """Tell whether a file was saved with this metadata."""
    return any(mark in content for mark in _MARKS)
