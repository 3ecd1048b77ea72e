"""Names of the demo's things and colours."""

from __future__ import annotations

CLASSES = ("car", "tree", "house", "sign", "ball", "boat", "bird", "flower", "cat", "fish", "kite", "cup")
PLURALS = (
    "cars",
    "trees",
    "houses",
    "signs",
    "balls",
    "boats",
    "birds",
    "flowers",
    "cats",
    "fishes",
    "kites",
    "cups",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
RGB = {
    "red": (214, 42, 42),
    "orange": (244, 140, 28),
    "yellow": (250, 216, 54),
    "green": (46, 158, 70),
    "blue": (42, 98, 214),
    "purple": (142, 68, 182),
    "white": (244, 244, 240),
    "black": (40, 40, 46),
}
# Width over height of each thing before its own stretch.
ASPECT = {
    "car": 1.75,
    "tree": 0.85,
    "house": 1.05,
    "sign": 0.72,
    "bird": 1.25,
    "flower": 0.8,
    "cat": 0.85,
    "fish": 1.6,
    "kite": 0.78,
}
