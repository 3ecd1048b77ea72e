"""What a terminal can and may be shown: nothing that it would obey, and nothing that hides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Controls, halves of surrogate pairs, line and paragraph separators, and all format characters (which turn the
# direction of text, or take no room) but those that write Arabic numbers.
_CONTROLS = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_IN_A_LINE = re.compile(f"[{_CONTROLS}]")
# Persian, Indic scripts and emoji are written with joiners, and answers have lines.
_IN_A_TEXT = re.compile(f"(?![\\n\\t\u200c\u200d])[{_CONTROLS}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """Write out the control and format characters of a text as JSON does; lines, tabs and joiners stay.

    A pipe gets them as they are; a terminal would obey them (colours, titles, the clipboard) or hide what they do.
    """
    return text if text.isprintable() else _IN_A_TEXT.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Do as `visible` for a name or a message, which is one line and needs no joiners."""
    return text if text.isprintable() else _IN_A_LINE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    letter = match[0]
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def is_plain(stream: TextIO) -> bool:
    """Tell whether a stream gets no colour."""
    environ = os.environ
    wanted = stream.isatty() or environ.get("FORCE_COLOR")
    return bool(environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or not wanted)


class TerminalConsole(Console):
    """A rich console that writes to one stream, in colour where that is wanted, and makes all text `visible`."""

    def __init__(self, stream: TextIO) -> None:
        # With no colour system rich writes no escape at all; under NO_COLOR alone it would still write bold.
        colours = None if is_plain(stream) else "auto"
        super().__init__(file=stream, color_system=colours, highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does; every text passes here, what moves the cursor is no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
