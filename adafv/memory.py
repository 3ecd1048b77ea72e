"""Recognises want of memory, whichever library says it and however: the one place that knows."""

from __future__ import annotations

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
