"""Streams: stdout carries data and nothing else; all that is said to a person goes to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import RenderableType
from rich.text import Text

from adafv.errors import AdaFVError, cut
from adafv_cli.terminal import TerminalConsole, is_plain, one_line, visible

LONGEST = 1_000  # letters of a message
QUIET, NORMAL, VERBOSE, DEBUG = -1, 0, 1, 2

# Read by the libraries when they are imported, so to be set before. A user's own setting wins.
_NO_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # transformers' bars follow it too
_NO_LOGS = {"TRANSFORMERS_VERBOSITY": "error", "TORCH_CPP_LOG_LEVEL": "ERROR"}
_LOGS = {"TRANSFORMERS_VERBOSITY": "info"}


class ReaderGone(Exception):
    """Nobody reads our output any more."""


class _StderrConsole(TerminalConsole):
    """A console that leaves the way a broken pipe ends to `app.run`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise ReaderGone


class Streams:
    """The three standard streams of one run, and how much is said on stderr.

    Args:
        stdin, stdout, stderr: the process's, or a test's.
        verbosity: `QUIET`, `NORMAL`, `VERBOSE` or `DEBUG`.
    """

    def __init__(self, stdin: TextIO, stdout: TextIO, stderr: TextIO, verbosity: int = NORMAL) -> None:
        self.stdin, self.stdout, self.stderr, self.verbosity = stdin, stdout, stderr, verbosity
        self.console = _StderrConsole(stderr)
        self.coloured = not is_plain(stderr)
        self.animated = stderr.isatty() and not self.console.is_dumb_terminal

    @classmethod
    def of_process(cls) -> Streams:
        """Take the process's own; a stream that the caller closed reads as empty and swallows what is written."""
        nothing = Path(os.devnull)
        return cls(
            sys.stdin or nothing.open(encoding="utf-8"),
            sys.stdout or nothing.open("w", encoding="utf-8"),
            sys.stderr or nothing.open("w", encoding="utf-8"),
        )

    @property
    def unicode(self) -> bool:
        """Whether stderr can show more than ASCII."""
        return (self.stderr.encoding or "").lower().replace("-", "") == "utf8"

    @property
    def ascii_data(self) -> bool:
        """Whether stdout can take nothing but ASCII for certain."""
        return (self.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self.console.width

    def picture(self, *parts: RenderableType, wrap: bool = True) -> None:
        """Write tables and texts for a person to stdout; without `wrap`, long lines stay long.

        Raises:
            ReaderGone: it is closed.
            AdaFVError: it cannot be written.
        """
        console = TerminalConsole(self.stdout)
        with console.capture() as captured:
            console.print(*parts, sep="\n", soft_wrap=not wrap)
        for line in captured.get().rstrip("\n").split("\n"):
            self._write(line.rstrip())

    def data(self, line: str) -> None:
        """Write one line of data to stdout at once: as it is into a pipe, made `visible` at a terminal.

        Raises:
            ReaderGone: the other end of the pipe is closed.
            AdaFVError: the line cannot be written (a full disk).
        """
        self._write(visible(line) if self.stdout.isatty() else line)

    def _write(self, line: str) -> None:
        encoding = self.stdout.encoding or "utf-8"
        try:
            # An answer in Chinese on a Latin-1 stdout loses characters, not the run.
            self.stdout.write(line.encode(encoding, "replace").decode(encoding) + "\n")
            self.stdout.flush()
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            silence(self.stdout)
            raise AdaFVError(f"cannot write to standard output: {error.strerror}") from error

    def record(self, content: Mapping[str, Any]) -> None:
        """Write one JSON object as a line of data; raises as `data` does."""
        self.data(json.dumps(content, ensure_ascii=self.ascii_data, allow_nan=False))

    def say(self, what: RenderableType) -> None:
        """Print on stderr, unless quiet."""
        if self.verbosity > QUIET:
            self.console.print(what, soft_wrap=True)

    def note(self, text: str) -> None:
        """Say one line that the user should know, unless quiet."""
        self.say(Text.assemble(("note: ", "yellow"), one_line(cut(text, LONGEST))))

    def error(self, error: AdaFVError) -> None:
        """Say what is wrong and, on a second line, how to put it right. Also when quiet."""
        lines = Text.assemble(("adafv: ", "bold red"), one_line(cut(error.what, LONGEST)))
        if error.fix:
            lines.append(f"\n  {one_line(cut(error.fix, LONGEST))}", "dim")
        self.console.print(lines, soft_wrap=True)

    def trace(self, error: BaseException) -> None:
        """Print the traceback, for those who asked for it with -vv."""
        if self.verbosity >= DEBUG:
            self.console.print("".join(traceback.format_exception(error)), soft_wrap=True)

    @contextmanager
    def busy(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Show at a terminal what is going on, for as long as it does; gives what changes that.

        What a library prints meanwhile goes to stderr. So would a `print` of ours (rich's status takes
        stdout too when stderr is a terminal): data goes through `data`, which holds the real stdout.
        """
        with redirect_stdout(self.stderr):
            if self.verbosity == QUIET or not self.animated:
                yield lambda _: None
            elif self.verbosity >= VERBOSE:  # library logs come in between: plain lines
                self.say(_doing(doing))
                yield lambda other: self.say(_doing(other))
            else:
                spinner = "dots" if self.unicode else "line"
                with self.console.status(_doing(doing), spinner=spinner) as status:
                    yield lambda other: status.update(_doing(other))

    @contextmanager
    def library_noise(self) -> Iterator[None]:
        """Show the libraries' progress bars with -v (at a terminal), and with -vv their logs and warnings too."""
        bars = {} if self.verbosity >= VERBOSE and self.animated else _NO_BARS
        wanted = bars | (_LOGS if self.verbosity >= DEBUG else _NO_LOGS)
        disabled, ours = logging.root.manager.disable, wanted.keys() - os.environ.keys()
        os.environ.update({name: wanted[name] for name in ours})
        with warnings.catch_warnings():
            if self.verbosity >= DEBUG:
                handler = logging.StreamHandler(self.stderr)
                handler.setFormatter(_VisibleLogs("%(name)s: %(message)s"))
                logging.basicConfig(handlers=[handler], level=logging.INFO)
            else:
                logging.disable(logging.WARNING)
                warnings.simplefilter("ignore")
            try:
                yield
            finally:
                logging.disable(disabled)
                for name in ours:
                    os.environ.pop(name, None)


class _VisibleLogs(logging.Formatter):
    """Formats log records for a terminal: they quote files."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _doing(what: str) -> Text:
    return Text(f"{what} ...", "dim")


def silence(*streams: TextIO) -> None:
    """Point streams at nothing, so that the interpreter's last flush cannot fail."""
    for stream in streams:
        try:
            number = stream.fileno()
        except (OSError, ValueError):  # a test's stream, or one that is closed
            continue
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, number)
        os.close(devnull)
