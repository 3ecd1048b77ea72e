"""How far a batch is: a bar at a terminal, now and then a plain line elsewhere, on stderr alone."""

from __future__ import annotations

from contextlib import ExitStack, redirect_stdout
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from adafv_cli.console import DEBUG, QUIET, Streams
from adafv_cli.rendering import units
from adafv_cli.rendering.tally import Tally

LINE_EVERY_S = 30.0
LINE_EVERY_SHARE = 0.1
_LINE_NOT_BEFORE_S = 2.0  # tenths of a short run are no news


class Progress:
    """Shows a tally while it grows. Data never passes through here.

    Args:
        streams: where to show it.
        tally: what is shown.
        total: lines there will be, `None` when nobody knows.
        crowded: the answers themselves appear on the terminal, so that nothing more is to be shown.
    """

    def __init__(self, streams: Streams, tally: Tally, total: int | None, *, crowded: bool) -> None:
        self._streams, self._tally, self._total = streams, tally, total
        self._silent = crowded or streams.verbosity == QUIET
        self._line_s, self._line_tenths = tally.seconds, 0
        self._stack = ExitStack()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        # What a library prints is no answer.
        self._stack.enter_context(redirect_stdout(self._streams.stderr))
        if self._streams.animated and not self._silent and self._streams.verbosity < DEBUG:
            self._bar = self._stack.enter_context(self._new_bar())
            self._task = self._bar.add_task("answering", total=self._total, state="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def advance(self) -> None:
        """Note that one more line was written."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._tally.lines, state=self._state())
        elif not self._silent and self._is_time():
            self._streams.say(f"{self._count()}, {self._state()}")

    def _new_bar(self) -> Bar:
        known = self._total is not None
        shape = BarColumn(bar_width=20) if known else SpinnerColumn("dots" if self._streams.unicode else "line")
        return Bar(
            TextColumn("{task.description}"),
            shape,
            MofNCompleteColumn() if known else TextColumn("{task.completed}"),
            TextColumn("{task.fields[state]}", style="dim"),
            console=self._streams.console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,  # or rich sends the answers to stderr
            redirect_stderr=True,
        )

    def _is_time(self) -> bool:
        tally = self._tally
        tenths = int(tally.lines / self._total / LINE_EVERY_SHARE) if self._total else 0
        since = tally.seconds - self._line_s
        if since < LINE_EVERY_S and (tenths == self._line_tenths or since < _LINE_NOT_BEFORE_S):
            return False
        self._line_s, self._line_tenths = tally.seconds, tenths
        return True

    def _count(self) -> str:
        if not self._total:
            return f"{self._tally.lines} lines"
        return f"{self._tally.lines} of {self._total} ({units.percent(self._tally.lines, self._total)})"

    def _state(self) -> str:
        tally = self._tally
        parts = [f"{units.digits(tally.per_second)}/s"]
        if self._total and tally.lines < self._total:
            parts.append(f"{units.duration((self._total - tally.lines) / tally.per_second)} left")
        if tally.visual:
            parts.append(f"{tally.saved:.0%} of visual tokens saved")
        if tally.failed:
            parts.append(f"{len(tally.failed)} failed")
        return ", ".join(parts)
