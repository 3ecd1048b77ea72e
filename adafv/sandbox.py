"""Bounds what a chat template can take of time and memory: it is a program that came with a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jinja2

_LARGEST_NUMBER = 100_000  # as large as the sandbox of transformers lets a range become
_MOST_STEPS = 200_000  # lines of a compiled template; published ones take a few hundred for one question
_COMPILED = "<template>"  # the file name of what Jinja compiles


class UnboundedError(Exception):
    """A template that could go on for ever or fill the memory."""


def check_template(text: str) -> None:
    """Refuse what could fill the memory before any of it is rendered, since Jinja works out constants.

    Args:
        text: Jinja.

    Raises:
        jinja2.TemplateSyntaxError: it is no Jinja.
        UnboundedError: it has powers, or huge numbers.
    """
    for _line, kind, value in jinja2.Environment().lex(text):
        if kind == "operator" and value == "**":
            raise UnboundedError("it computes powers (**)")
        if kind == "integer" and (len(value) > 20 or int(value.replace("_", ""), 0) > _LARGEST_NUMBER):
            raise UnboundedError(f"it counts to {value[:20]}, more than {_LARGEST_NUMBER:,}")


@contextmanager
def bounded() -> Iterator[None]:
    """End a template that is rendered inside after a number of steps, however its loops are nested.

    Raises:
        UnboundedError: that many steps were taken.
    """
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != _COMPILED:
            return None
        steps += event == "line"
        if steps > _MOST_STEPS:
            raise UnboundedError(f"it goes on after {_MOST_STEPS:,} steps")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
