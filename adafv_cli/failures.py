"""What went wrong, as an exit code and two lines on stderr: the only place where errors become codes."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import typer

from adafv.errors import AdaFVError, BudgetError, CheckpointError, DeviceError, InputError, cut, shown
from adafv.memory import is_out_of_memory
from adafv_cli.console import DEBUG, ReaderGone, Streams, silence
from adafv_cli.exits import Exit, UsageError

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
    if interrupted or _lies_behind(KeyboardInterrupt, error):
        streams.console.print("adafv: interrupted", soft_wrap=True)
        return Exit.INTERRUPTED
    if isinstance(error, ReaderGone) or (isinstance(error, SystemExit) and _lies_behind(BrokenPipeError, error)):
        return Exit.READER_GONE
    if isinstance(error, SystemExit):  # of typer's shell completion
        return error.code if isinstance(error.code, int) else Exit.OK
    # Older typers, which are refused when a model is to be loaded, have no such name.
    if hasattr(typer, "TyperException") and isinstance(error, typer.TyperException):
        if error.format_message():  # empty after help was printed because no argument was given
            streams.error(_usage(error, args))
        return Exit.USAGE
    known = error if isinstance(error, AdaFVError) else _out_of_memory(error) or _disk_full(error, streams)
    streams.trace(error)
    if known is not None:
        streams.error(known)
        return _code_for(known)
    first_line = (str(error).splitlines() or [""])[0]
    hint = "" if streams.verbosity >= DEBUG else "run with -vv for the traceback"
    streams.error(AdaFVError(f"unexpected {type(error).__name__}: {first_line}", hint))
    return Exit.BUG


def _code_for(error: AdaFVError) -> Exit:
    """Choose the exit code of an error that was raised on purpose."""
    if isinstance(error, UsageError | BudgetError):
        return Exit.USAGE
    if isinstance(error, CheckpointError | DeviceError):
        return Exit.CHECKPOINT
    if isinstance(error, InputError):
        return Exit.INPUT
    return Exit.SOME_FAILED


def _out_of_memory(error: BaseException) -> DeviceError | None:
    """Turn a library's way to say that memory is full into ours; any other error into `None`."""
    if not is_out_of_memory(error):
        return None
    return DeviceError(
        "out of memory",
        "try a smaller --keep, --dtype bfloat16, --quantize int4, or --device-map auto with --max-memory",
    )


def _lies_behind(kind: type[BaseException], error: BaseException) -> bool:
    """Tell whether an error comes of another: Ctrl-C becomes an ImportError while some libraries load."""
    link: BaseException | None = error
    seen: list[BaseException] = []  # an error may be said to come of itself
    while link is not None and link not in seen:
        if isinstance(link, kind):
            return True
        seen.append(link)
        link = link.__cause__ or link.__context__
    return False


def _disk_full(error: BaseException, streams: Streams) -> AdaFVError | None:
    """Turn a failure to write (help, most likely) for want of room into ours; any other error into `None`."""
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
