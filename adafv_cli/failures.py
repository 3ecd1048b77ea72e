"""What went wrong, as an exit code and two lines on stderr."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import typer

from adafv.errors import AdaFVError, cut, shown
from adafv_cli.console import DEBUG, ReaderGone, Streams, silence
from adafv_cli.exits import Exit, UsageError, code_for, lies_behind, out_of_memory

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def tell(error: BaseException, args: Sequence[str], streams: Streams, *, interrupted: bool = False) -> int:
    """Say on stderr why a command ended.

    Args:
        error: what it raised.
        args: its command line.
        streams: where to say it.
        interrupted: whether Ctrl-C was pressed, whatever a library has made of it.

    Returns:
        The exit code.

    Raises:
        ReaderGone: nobody reads stderr.
    """
    if interrupted or lies_behind(KeyboardInterrupt, error):
        streams.console.print("adafv: interrupted", soft_wrap=True)
        return Exit.INTERRUPTED
    if isinstance(error, ReaderGone) or (isinstance(error, SystemExit) and lies_behind(BrokenPipeError, error)):
        return Exit.READER_GONE
    if isinstance(error, SystemExit):  # of typer's shell completion
        return error.code if isinstance(error.code, int) else Exit.OK
    if isinstance(error, typer.TyperException):
        if error.format_message():  # empty after help was printed because no argument was given
            streams.error(_usage(error, args))
        return Exit.USAGE
    known = error if isinstance(error, AdaFVError) else out_of_memory(error) or _disk_full(error, streams)
    streams.trace(error)
    if known is not None:
        streams.error(known)
        return code_for(known)
    first_line = (str(error).splitlines() or [""])[0]
    hint = "" if streams.verbosity >= DEBUG else "run with -vv for the traceback"
    streams.error(AdaFVError(f"unexpected {type(error).__name__}: {first_line}", hint))
    return Exit.BUG


def _disk_full(error: BaseException, streams: Streams) -> AdaFVError | None:
    """What to tell the user when something (help, most likely) could not be written, else `None`."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    silence(streams.stdout)  # or the interpreter's last flush fails, too
    where = "standard output" if error.filename is None else cut(str(error.filename))
    return AdaFVError(f"cannot write to {where}: {error.strerror}", "make room on the disk")


def _usage(error: typer.TyperException, args: Sequence[str]) -> UsageError:
    """Say in our two lines what is wrong with a command line that typer refused."""
    what = error.format_message().strip().rstrip(".").replace("\n", " ").partition(" (Possible")[0]
    context = getattr(error, "ctx", None)  # not every error has one
    command = context.command_path if context else " ".join(["adafv", *args[:1]])
    fix = f"see {command} --help"
    if what.startswith("No such option"):
        near = getattr(error, "possibilities", None)
        if near:
            fix = f"did you mean {near[0]}? {fix}"
        elif command == "adafv ask":
            fix = f'a question that begins with "-" goes behind a --: {command} IMAGE -- "-5 or 5?"'
    cause = error.__cause__
    if cause is not None and hasattr(cause, "errors"):  # pydantic's text leaves the value out
        what = f"{what} (not {shown(cause.errors()[0]['input'])})"
    return UsageError(what[:1].lower() + what[1:], fix)
