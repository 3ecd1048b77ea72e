"""What went wrong, as an exit code and two lines on stderr."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from adafv.errors import AdaFVError, shown
from adafv_cli.console import DEBUG, ReaderGone, Streams
from adafv_cli.exits import Exit, UsageError, code_for, out_of_memory, was_interrupted


def tell(error: BaseException, args: Sequence[str], streams: Streams) -> Exit:
    """Say on stderr why a command ended.

    Args:
        error: what it raised.
        args: its command line.
        streams: where to say it.

    Raises:
        ReaderGone: nobody reads stderr.
    """
    if isinstance(error, ReaderGone | SystemExit):  # typer and rich exit on a broken pipe; nothing else exits
        return Exit.READER_GONE
    if was_interrupted(error):
        streams.console.print("adafv: interrupted", soft_wrap=True)
        return Exit.INTERRUPTED
    if isinstance(error, typer.TyperException):
        if error.format_message():  # empty after help was printed because no argument was given
            streams.error(_usage(error, args))
        return Exit.USAGE
    known = error if isinstance(error, AdaFVError) else out_of_memory(error)
    streams.trace(error)
    if known is not None:
        streams.error(known)
        return code_for(known)
    first_line = (str(error).splitlines() or [""])[0]
    hint = "" if streams.verbosity >= DEBUG else "run with -vv for the traceback"
    streams.error(AdaFVError(f"unexpected {type(error).__name__}: {first_line}", hint))
    return Exit.BUG


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
