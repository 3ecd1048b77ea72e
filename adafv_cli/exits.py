"""Exit codes: how a shell script learns what happened."""

from __future__ import annotations

from enum import IntEnum

from adafv.errors import AdaFVError, BudgetError, CheckpointError, DeviceError, InputError
from adafv.memory import is_out_of_memory


class Exit(IntEnum):
    """Each code has one meaning, in every command."""

    OK = 0  # everything was answered
    SOME_FAILED = 1  # finished, but some answers are missing
    USAGE = 2  # the command line: unknown flags, values out of range, paths that do not exist
    CHECKPOINT = 3  # the checkpoint or the device: not found, broken, out of memory
    INPUT = 4  # input that exists but cannot be read: a broken image, an empty question
    BUG = 70  # none of the above: a defect of adafv or of a library (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # Ctrl-C
    READER_GONE = 141  # whoever read our output went away (`adafv ... | head -1`)


class UsageError(AdaFVError):
    """A command line that cannot be run."""


def code_for(error: AdaFVError) -> Exit:
    """The exit code of an error that was raised on purpose."""
    if isinstance(error, UsageError | BudgetError):
        return Exit.USAGE
    if isinstance(error, CheckpointError | DeviceError):
        return Exit.CHECKPOINT
    if isinstance(error, InputError):
        return Exit.INPUT
    return Exit.SOME_FAILED


def out_of_memory(error: BaseException) -> DeviceError | None:
    """What to tell the user when `error` is some library's way to say that memory is full, else `None`."""
    if not is_out_of_memory(error):
        return None
    return DeviceError(
        "out of memory",
        "try a smaller --keep, --dtype bfloat16, --quantize int4, or --device-map auto with --max-memory",
    )


def lies_behind(kind: type[BaseException], error: BaseException) -> bool:
    """Tell whether an error comes of another: Ctrl-C becomes an ImportError while some libraries load."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, kind):
            return True
        link = link.__cause__ or link.__context__
    return False
