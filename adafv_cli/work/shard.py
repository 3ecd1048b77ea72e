"""One part of an input of several that are answered apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from adafv.errors import shown
from adafv_cli.exits import UsageError
from adafv_cli.work.lines import Line


@dataclass(frozen=True)
class Shard:
    """One of `count` disjoint parts of the questions, numbered from 1; all questions about an image are in one."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read `I/N`.

        Raises:
            UsageError: not of that form, or I not between 1 and N.
        """
        if text is None:
            return cls()
        match = re.fullmatch(r"([0-9]{1,18})/([0-9]{1,18})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard: {shown(text)} is no part of a whole", "give 1/4, 2/4, 3/4 or 4/4")
        return cls(int(match[1]), int(match[2]))

    def holds(self, line: Line) -> bool:
        """Tell whether a line belongs to this part: by the image as it is written, so the same everywhere."""
        return self.count == 1 or line.image_key % self.count == self.index - 1
