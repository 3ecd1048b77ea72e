"""Tells whose fault an exception is, so that one line cannot end a run: the line's, a defect, or a lost device."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from adafv.errors import AdaFVError, DeviceError, InternalError, OutOfMemoryError, cut
from adafv.memory import is_out_of_memory

log = logging.getLogger(__name__)

_DEVICE_ERRORS = ("CUDA error", "device-side assert", "cuDNN error", "HIP error", "MPS backend")


def line_error(error: Exception, computes: Callable[[], bool] = lambda: False) -> AdaFVError:
    """Turn what a line raised into that line's error; it holds no traceback, which would keep tensors in memory.

    Args:
        error: what was raised.
        computes: whether the accelerators still do; where there is none, the message of an error is believed.

    Raises:
        DeviceError: a device is lost, so that no other line could be answered either.
    """
    if isinstance(error, InternalError):
        return InternalError(error.what, error.fix, error.origin)
    if isinstance(error, AdaFVError):
        if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
            raise error
        return type(error)(error.what, error.fix)
    first_line = cut((str(error).splitlines() or [""])[0])
    if is_out_of_memory(error):
        return OutOfMemoryError(f"out of memory: {first_line}", "use smaller batches, or a smaller image")
    if any(sign in str(error) for sign in _DEVICE_ERRORS) and not computes():
        raise DeviceError(f"the device failed: {first_line}", "restart it, then go on with --resume") from error
    origin = "".join(traceback.format_exception(error))
    return InternalError(f"unexpected {type(error).__name__}: {first_line}", "run with -vv, and report it", origin)


def log_defect(question_id: object, error: AdaFVError) -> None:
    """Log where a defect came from, for whoever listens."""
    if isinstance(error, InternalError):
        log.warning("question_id %r: %s\n%s", question_id, error.what, error.origin)
