"""How a run ends: what was answered and what failed, how to go on, and the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from adafv.errors import AdaFVError, InternalError
from adafv_cli.console import DEBUG, Streams
from adafv_cli.rendering import summary
from adafv_cli.rendering.run_report import RunReport
from adafv_cli.rendering.tally import Tally
from adafv_cli.work.launch import resume_command
from adafv_cli.work.outlog import Log
from adafv_cli.work.questions import Questions
from adafv_cli.work.results import Results

COUNTERS = ("images_encoded", "cache_hits", "encodings_read", "encodings_bytes")


@dataclass(frozen=True)
class Ending:
    """Sum a run up, for a person and in its report.

    Args:
        streams, questions, log, results, report, processes: of the run.
        tally: of its answers.
        outcome: how it ended: `finished`, or why it did not.
    """

    streams: Streams
    questions: Questions
    log: Log | None
    results: Results
    report: RunReport | None
    processes: int
    tally: Tally
    outcome: str

    def tell(self, described: Mapping[str, Any], counters: dict[str, int]) -> None:
        """Say everything, and write what there is to be written.

        Args:
            described: the model.
            counters: of the stream, by `COUNTERS`.
        """
        made = self.results.made()
        try:
            self._sum_up(counters)
            if self.report is not None:
                counters["skipped"] = self.questions.skipped
                documented = self.results.documented
                self.report.write(self.tally, self.outcome, dict(described), counters, made, documented)
        finally:
            self.results.publish(partial=self.outcome != "finished")

    def _sum_up(self, counters: Mapping[str, int]) -> None:
        if self.tally.lines:
            if self.results.crowded and self.streams.stderr.isatty():
                self.streams.say("")
            self.streams.say(self.results.summary(self.tally, counters))
        if self.tally.failed:
            share, listed = self.results.failures(self.tally)
            self.streams.error(AdaFVError(f"{share} failed:"))
            self.streams.console.print(summary.failures(listed), soft_wrap=True)
        found = defects(self.tally)
        if found:
            many = "failures are defects" if found > 1 else "failure is a defect"
            what = f"{found} {many} of adafv or of a library, not of the input"
            hint = "" if self.streams.verbosity >= DEBUG else "run with -vv for the tracebacks"
            self.streams.error(AdaFVError(what, hint))
        if self.outcome != "finished" or self.tally.failed:
            self._say_how_to_resume(finished=self.outcome == "finished")

    def _say_how_to_resume(self, *, finished: bool) -> None:
        if self.log is None or not self.log.regular:
            if not finished:
                self.streams.say(f"{self.tally.lines} lines were written; a run with -o FILE can be resumed")
            return
        doing = "redo what failed" if finished else "go on"
        piped = ", with the same input" if self.questions.source.file is None else ""
        text = Text(f"{doing}{piped}:\n  ").append(resume_command(sys.argv[1:], self.processes), "bold")
        self.streams.console.print(text, soft_wrap=True)


def defects(tally: Tally) -> int:
    """Count failed answers that are nobody's fault but the tool's."""
    return sum(failed.type == InternalError.__name__ for failed in tally.failed)
