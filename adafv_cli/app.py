"""`adafv`: its commands, and how a process runs one.

All imports are inside the functions, so that Ctrl-C is quiet from the first moment on.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # the same as in typing, whose import takes longer than this whole module
if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

    from adafv_cli.console import Streams

INTERRUPTED, READER_GONE = 130, 141  # as in `exits.Exit`, which is not imported yet when main starts


def main() -> None:
    """Run the command line of this process and exit with one of the codes of `exits.Exit`."""
    noted: list[int] = []
    try:
        _note_interrupts(noted)
        from adafv_cli.console import Streams, silence

        code = run(sys.argv[1:], Streams.of_process(), noted)
        if code == READER_GONE:
            silence(sys.stdout, sys.stderr)
    except BaseException as error:
        if not noted and not isinstance(error, KeyboardInterrupt):
            raise
        code = INTERRUPTED
        if sys.stderr is not None:
            sys.stderr.write("adafv: interrupted\n")
    if code == INTERRUPTED:
        # Nothing is left to write, and Python would end by SIGINT rather than with our code
        # when it was an exec() deep in some import that was interrupted.
        os._exit(code)
    sys.exit(code)


def _note_interrupts(noted: list[int]) -> None:
    """Let SIGINT leave a note before it raises: a library that is half imported may make any error of it."""
    import signal

    def note(number: int, frame: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, note)


def run(args: Sequence[str], streams: Streams, noted: Sequence[int] = ()) -> int:
    """Run one command line and return its exit code; only Ctrl-C before a command starts is raised.

    Args:
        args: the command line.
        streams: of the process.
        noted: signals that have interrupted it, as they come.
    """
    from adafv_cli.console import ReaderGone
    from adafv_cli.failures import tell

    app = build()
    try:
        code = app(list(args), prog_name="adafv", obj=streams, standalone_mode=False)
        if code != INTERRUPTED:
            return int(code or 0)
        error: BaseException = KeyboardInterrupt()  # which typer has made a code of
    except (Exception, SystemExit) as raised:
        error = raised
    try:
        return tell(error, args, streams, interrupted=bool(noted))
    except ReaderGone:
        return READER_GONE


def build() -> typer.Typer:
    """Build the typer application: every command, registered."""
    import typer

    from adafv_cli import ask, batch, bench, convert, info, samples, show, sweep
    from adafv_cli.options import Command, Group, before_commands, flowing

    app = typer.Typer(
        cls=Group,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback(help=flowing(ABOUT), epilog=EXIT_CODES)(before_commands)
    for name, text, command in (
        ("ask", ask.HELP, ask.ask),
        ("batch", batch.HELP, batch.batch),
        ("sweep", sweep.HELP, sweep.sweep),
        ("show", show.HELP, show.show),
        ("bench", bench.HELP, bench.bench),
        ("info", info.HELP, info.info),
        ("convert", convert.HELP, convert.convert),
        ("samples", samples.HELP, samples.samples),
    ):
        needs_arguments = name not in ("bench", "info", "samples")
        app.command(name, cls=Command, no_args_is_help=needs_arguments, epilog=EXIT_CODES, help=flowing(text))(command)
    return app


ABOUT = """
Ask LLaVA about images with AdaFV visual-token pruning, and see what it saves.

[bold]Examples[/]
  adafv samples
  adafv ask sample_images/street.png "what color is the sign?"
  adafv ask photo.jpg "what is this?" -m llava-hf/llava-1.5-7b-hf --keep 128
  adafv batch questions.jsonl --keep 128 -o answers.jsonl
  adafv sweep questions.jsonl --keep 5%,10%,25%,50% --plot curve.png
  adafv show sample_images/street.png "what color is the sign?" -o sign.png
  adafv bench --geometry llava-1.5-7b
  adafv info llava-hf/llava-1.5-7b-hf
  adafv convert checkpoints/my-llava-lora my-llava

Every command has its own help: adafv ask --help
"""

EXIT_CODES = (
    "[bold]Exit codes[/]  0 all answered, 1 some answers failed, 2 usage, 3 checkpoint or device, "
    "4 malformed input, 70 a defect, 130 interrupted, 141 reader went away."
)
