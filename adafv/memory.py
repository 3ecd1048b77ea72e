"""Recognises want of memory, whichever library says it and however: the one place that knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adafv.errors import OutOfMemoryError

# CPUs and CUDA's libraries raise no class of their own.
_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error` is some library's way to say that memory is full.

    Told by name and text, so that torch need not be imported to ask.
    """
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(sign in text for sign in _SIGNS)


@contextmanager
def memory_explained() -> Iterator[None]:
    """Re-raise a model's want of memory as `OutOfMemoryError`, with what can be done about it."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory: {str(error).splitlines()[0]}",
            "keep fewer visual tokens (--keep), use smaller batches, --dtype bfloat16 or --quantize int4",
        ) from error
