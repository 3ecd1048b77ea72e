"""What becomes of a run's answers: written as they come, summed up at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.text import Text

from adafv.errors import AdaFVError, shown
from adafv.records import Answer
from adafv_cli.console import Streams
from adafv_cli.rendering import summary
from adafv_cli.rendering.run_report import Results as SweepDocument
from adafv_cli.rendering.tally import Tally
from adafv_cli.work.earlier import Setting
from adafv_cli.work.lines import Line, encoded
from adafv_cli.work.outlog import Log


class Results(Protocol):
    """What a command makes of the lines of its input and of their answers."""

    @property
    def crowded(self) -> bool:
        """Whether the answers themselves appear on the terminal."""

    def meet(self, line: Line, left: Sequence[Setting]) -> None:
        """Take notice of a line, in order; `left` are the settings that it is asked under now."""

    def take(self, answers: Sequence[Answer]) -> None:
        """Take the answers of the next line that had something left."""

    def summary(self, tally: Tally, counters: Mapping[str, int]) -> Text:
        """Say what was done, for a run that answered something."""

    def failures(self, tally: Tally) -> tuple[str, Tally]:
        """Say how many failed, and what to list of them."""

    @property
    def documented(self) -> SweepDocument | None:
        """What a report that is a document has, too."""

    def made(self) -> dict[str, Any]:
        """Work out what else belongs into the report."""

    def publish(self, *, partial: bool) -> None:
        """Show what came of it all."""


class BatchResults:
    """One answer to a line: into the log, or to stdout, where a person at a terminal gets its text alone.

    Args:
        streams: of the process.
        log: where answers go, `None` for stdout.
        as_json: JSON at a terminal, too.
    """

    def __init__(self, streams: Streams, log: Log | None, *, as_json: bool = False) -> None:
        self._streams, self._log, self._as_json = streams, log, as_json

    @property
    def crowded(self) -> bool:
        """Whether the answers themselves appear on the terminal."""
        return self._log is None and self._streams.stdout.isatty()

    def meet(self, line: Line, left: Sequence[Setting]) -> None:
        """Do nothing: what was answered earlier stands in the log."""

    def take(self, answers: Sequence[Answer]) -> None:
        """Write the answers of a line.

        Raises:
            AdaFVError: they cannot be written.
            ReaderGone: nobody reads stdout any more.
        """
        for answer in answers:
            if self._log is not None:
                self._log.write(answer)
            elif self.crowded and not self._as_json:
                self._show(answer)
            else:
                self._streams.data(encoded(answer, ascii_only=self._streams.ascii_data))

    def _show(self, answer: Answer) -> None:
        if answer.error is None:
            self._streams.data(" ".join((answer.text or "").split("\n")))
        else:
            what = f"question_id {shown(answer.question_id)}: {answer.error.message}"
            self._streams.error(AdaFVError(what, answer.error.fix))

    def summary(self, tally: Tally, counters: Mapping[str, int]) -> Text:
        """Say what was answered, and what it took."""
        return summary.summary(tally, counters)

    def failures(self, tally: Tally) -> tuple[str, Tally]:
        """Say how many lines failed."""
        return f"{len(tally.failed)} of {tally.lines} lines", tally

    @property
    def documented(self) -> None:
        """Nothing: a batch is reported in JSON."""

    def made(self) -> dict[str, Any]:
        """Nothing else belongs into the report."""
        return {}

    def publish(self, *, partial: bool) -> None:
        """Do nothing: the answers are out already."""
