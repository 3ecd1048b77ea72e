"""Text that any reader's machine can draw: fonts that have its characters, and lines that fit."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

_BASE = "DejaVu Sans"  # comes with matplotlib
_MISSING = "\u25a1"


def readable(text: str) -> str:
    """Make one line of a text, without control characters, with a box for each character that no font here has."""
    text = " ".join("".join(" " if unicodedata.category(one) == "Cc" else one for one in text).split())
    text = "".join(one for one in text if unicodedata.category(one) not in ("Cf", "Cs", "Co"))
    missing = {one for one in text if ord(one) not in _characters(_BASE)}
    for name in families(missing)[1:]:
        missing -= {one for one in missing if ord(one) in _characters(name)}
    return "".join(_MISSING if one in missing else one for one in text)


def families(characters: Iterable[str]) -> list[str]:
    """Names of fonts that have the characters together, as far as there are any."""
    wanted, chosen = {ord(one) for one in characters} - _characters(_BASE), [_BASE]
    for name in _others() if wanted else []:
        if wanted & _characters(name):
            chosen.append(name)
            wanted -= _characters(name)
        if not wanted:
            break
    return chosen


def wrapped(text: str, width: float, size: float, lines: int) -> list[str]:
    """Lines of at most `width` points in letters of `size` points; the last of `lines` ends in an ellipsis if cut."""
    done: list[str] = []
    rest = readable(text)
    while rest:
        line, rest = _line(rest, width, size)
        done.append(line)
        if len(done) == lines and rest:
            done[-1] = shortened(f"{line} {rest}", width, size)
            break
    return done


def shortened(text: str, width: float, size: float) -> str:
    """Cut a readable text to what fits, with an ellipsis where it is cut."""
    if width_of(text, size) <= width:
        return text
    return text[: _fitting(text, width - width_of("\u2026", size), size)].rstrip() + "\u2026"


def width_of(text: str, size: float) -> float:
    """Measure a text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=families(text), size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return float(width)


def _line(text: str, width: float, size: float) -> tuple[str, str]:
    """Split off the first line, at a space where there is one, from what is left."""
    if width_of(text, size) <= width:
        return text, ""
    end = max(1, _fitting(text, width, size))
    space = text.rfind(" ", 0, end + 1)
    end = space if space > 0 else end
    return text[:end].rstrip(), text[end:].lstrip()


def _fitting(text: str, width: float, size: float) -> int:
    """Count how many of the first characters fit."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width_of(text[:middle], size) <= width else (low, middle - 1)
    return low


@cache
def _characters(name: str) -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(name)).get_charmap())


@cache
def _others() -> tuple[str, ...]:
    """Installed fonts of outlines that are upright and of normal weight."""
    from matplotlib.font_manager import fontManager, get_font

    found = []
    for font in sorted(fontManager.ttflist, key=lambda font: font.name):
        plain = font.style == "normal" and font.weight in (400, "normal", "regular", "book", "medium")
        if plain and font.name not in (_BASE, "Last Resort High-Efficiency"):
            try:
                if get_font(font.fname).scalable:
                    found.append(font.name)
            except (OSError, RuntimeError):
                continue
    return tuple(dict.fromkeys(found))


def heading_of(model: str, said: str, room: float, size: float) -> str:
    """Fit the title into `room` points: the checkpoint's whole name, the end of its path, or as much of it as fits."""
    name = readable(model)
    if not name:
        return said
    if width_of(f"{name}, {said}", size) > room:
        name = name.rstrip("/").rpartition("/")[2] or name
    return f"{shortened(name, room - width_of(f', {said}', size), size)}, {said}"
