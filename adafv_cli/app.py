"""`adafv`: the commands, and the one place where errors become exit codes.

typer and rich are imported by `main`, so that Ctrl-C is quiet from the first moment on.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adafv_cli.exits import Exit, UsageError, code_for, out_of_memory, was_interrupted

if TYPE_CHECKING:
    import typer

    from adafv_cli.console import Streams


def main() -> None:
    """Run the command line of this process and exit with one of the codes of `Exit`."""
    try:
        from adafv_cli.console import Streams, silence

        code = run(sys.argv[1:], Streams.of_process())
        if code == Exit.READER_GONE:
            silence(sys.stdout, sys.stderr)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
        sys.stderr.write("adafv: interrupted\n")
    sys.exit(code)


def run(args: Sequence[str], streams: Streams) -> int:
    """Run one command line and return its exit code; only Ctrl-C before a command starts is raised."""
    from adafv.errors import AdaFVError
    from adafv_cli.console import ReaderGone

    app = build()
    import typer

    try:
        code = app(list(args), prog_name="adafv", obj=streams, standalone_mode=False)
        return _interrupted(streams) if code == Exit.INTERRUPTED else int(code or Exit.OK)
    except AdaFVError as error:
        streams.error(error)
        return code_for(error)
    except typer.TyperException as error:
        if error.format_message():  # empty after help was printed because no argument was given
            streams.error(_usage(error))
        return Exit.USAGE
    except (ReaderGone, SystemExit):  # typer and rich exit on a broken pipe; nothing else exits in there
        return Exit.READER_GONE
    except Exception as error:
        return _unforeseen(error, streams)


def build() -> typer.Typer:
    """The typer application: every command, registered."""
    import typer

    from adafv_cli import ask
    from adafv_cli.options import before_commands

    help_flags = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        no_args_is_help=True,
        context_settings=help_flags,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    app.callback(help=ABOUT, epilog=EXIT_CODES)(before_commands)
    app.command("ask", no_args_is_help=True, epilog=EXIT_CODES, help=ask.HELP)(ask.ask)
    return app


def _interrupted(streams: Streams) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once
    streams.console.print("adafv: interrupted", soft_wrap=True)
    return Exit.INTERRUPTED


def _unforeseen(error: Exception, streams: Streams) -> int:
    from adafv_cli.console import DEBUG

    if was_interrupted(error):
        return _interrupted(streams)
    streams.trace(error)
    full = out_of_memory(error)
    if full is not None:
        streams.error(full)
        return code_for(full)
    first_line = (str(error).splitlines() or [""])[0]
    hint = "" if streams.verbosity >= DEBUG else "run with -vv for the traceback"
    streams.error(UsageError(f"unexpected {type(error).__name__}: {first_line}", hint))
    return Exit.BUG


def _usage(error: typer.TyperException) -> UsageError:
    """A command line that typer refused, said in our two lines."""
    what = error.format_message().strip().rstrip(".").replace("\n", " ")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "adafv"
    fix = f"see {command} --help"
    if hasattr(error, "option_name"):
        what = what.partition(" (Possible")[0]
        near = getattr(error, "possibilities", None) or ()
        if near:
            fix = f"did you mean {' or '.join(near)}? see {command} --help"
        elif "No such option" in what:
            fix = f'a question that begins with "-" goes behind a --: {command} IMAGE -- "-5 or 5?"'
    cause = error.__cause__
    if cause is not None and hasattr(cause, "errors"):  # pydantic's text leaves the value out
        what = f"{what} (not {cause.errors()[0]['input']!r})"
    return UsageError(what[:1].lower() + what[1:], fix)


ABOUT = """
Ask LLaVA about images with AdaFV visual-token pruning, and see what it saves.

[bold]Examples[/]
  adafv ask sample_images/street.png "what color is the sign?"
  adafv ask photo.jpg "what is this?" -m llava-hf/llava-1.5-7b-hf --keep 128

Every command has its own help: adafv ask --help
"""

EXIT_CODES = (
    "[bold]Exit codes[/]  0 all answered, 1 some answers failed, 2 usage, 3 checkpoint or device, "
    "4 malformed input, 70 a defect, 130 interrupted, 141 reader went away."
)
