"""Exit codes: how a shell script learns what happened. Which error has which is in `failures`."""

from __future__ import annotations

from enum import IntEnum

from adafv.errors import AdaFVError


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
