"""The layout of all reports: a label, then what it labels."""

from __future__ import annotations

from rich.text import Text

from adafv_cli.terminal import one_line

WIDTH = 15  # columns of a label


def row(label: str, content: str, style: str = "") -> Text:
    """Lay out one line of a report; without a label it goes on with the line above."""
    return Text().append(one_line(label).ljust(WIDTH), "bold").append(one_line(content), style)
