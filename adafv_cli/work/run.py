"""One run of `adafv batch` or `adafv sweep`: load, answer, and an end in good order whatever happens.

What becomes of the answers is its `Results`; a batch is a sweep with one setting.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.text import Text

from adafv.errors import AdaFVError, InternalError, ServerError, cut, shown
from adafv.records import Answer
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.streaming.runs import Asked
from adafv_cli.console import DEBUG, VERBOSE, ReaderGone, Streams
from adafv_cli.exits import Exit
from adafv_cli.interrupts import Interrupts
from adafv_cli.loading import DEMO_NOTE, is_scene, load_model
from adafv_cli.progress import Progress
from adafv_cli.rendering import report, summary
from adafv_cli.rendering.run_report import RunReport
from adafv_cli.rendering.tally import Tally
from adafv_cli.work.earlier import Setting
from adafv_cli.work.launch import resume_command
from adafv_cli.work.lines import Line
from adafv_cli.work.outlog import Log
from adafv_cli.work.questions import Census, Questions, is_missing, no_question
from adafv_cli.work.results import Results
from adafv_cli.work.source import InFlight
from adafv_cli.work.suspects import Suspects

if TYPE_CHECKING:
    from adafv.engine import Model
    from adafv.streaming.streams import SweepStream


@dataclass(kw_only=True)
class Run:
    """Everything that was chosen and checked.

    Args:
        streams: of the process.
        load, batch: settings of the library.
        runs: what each line is answered under.
        questions: the lines to answer, under the same settings.
        census: of the input, unless it is a pipe.
        log: where answers go, if into a file.
        recorded: the settings that a resumed run has to repeat.
        results: what becomes of the answers.
        report: file for the report, if one was asked for.
        chosen: other settings by name, to be shown.
        fail_fast: stop at the first line that fails.
        processes: that a launcher started to do this, this one among them.
        began: called when the model has loaded and the log is begun.
    """

    streams: Streams
    load: LoadSettings
    runs: Sequence[RunSettings]
    batch: BatchSettings
    questions: Questions
    census: Census | None
    log: Log | None
    recorded: dict[str, Any]
    results: Results
    report: RunReport | None
    chosen: dict[str, Any]
    fail_fast: bool
    processes: int = 1
    began: Callable[[], None] = lambda: None
    tally: Tally = field(init=False)
    interrupts: Interrupts = field(init=False)
    model: Model | None = field(init=False, default=None)
    stream: SweepStream | None = field(init=False, default=None)
    suspects: Suspects = field(init=False)

    def go(self) -> Exit:
        """Answer everything, and return how it went.

        Raises:
            AdaFVError: nothing to ask, no model, no room on the disk, or the model gave up.
            ReaderGone: nobody reads stdout any more.
        """
        self.interrupts, self.suspects = Interrupts(self.streams), Suspects(self.log)
        self._note_leftovers()
        lines = self._lines()
        first = next(lines, None)
        self.tally = Tally()
        if first is None:
            return self._nothing()
        self._note_missing(first)
        with self.streams.library_noise():
            self.model = model = load_model(self.load, self.runs[0], self.streams)
            self._introduce(model, first)
            if self.log is not None:
                self.log.begin(self.suspects.beside(self.recorded))
            self.began()
            self.tally = Tally()  # its time counts from here
            try:
                outcome = self._answer(model, chain([first], lines))
                if self.log is not None:  # or the report would speak of answers that are gone
                    self.log.check_there()
            except ReaderGone:
                raise
            except BaseException as error:
                if isinstance(error, ServerError) and self.stream is not None:
                    self.suspects.died(self.stream.suspects)
                self._conclude(f"failed: {error}")
                raise
            self._conclude(outcome)
        if outcome == "interrupted":
            return Exit.INTERRUPTED
        if self._defects:
            return Exit.BUG
        return Exit.SOME_FAILED if self.tally.failed else Exit.OK

    @property
    def _defects(self) -> int:
        """Failed answers that are nobody's fault but the tool's."""
        return sum(failed.type == InternalError.__name__ for failed in self.tally.failed)

    def _nothing(self) -> Exit:
        if not self.questions.lines:
            raise no_question(self.questions.source.name, None)
        done = self.questions.skipped
        if self.log is not None and not self.log.found.last:  # with --force, other answers may still stand there
            self.log.begin(self.recorded)
        here = f"all {done} lines are answered already" if done else "no line belongs to this shard"
        self.streams.say(f"nothing to do: {here}")
        self._conclude("finished")
        return Exit.OK

    def _note_leftovers(self) -> None:
        """Say that the output has answers of other questions; a sweep's curve is of the input's alone."""
        if self.census is None or self.log is None or len(self.runs) > 1:
            return
        left = len(self.questions.done) - self.census.known
        if left:
            answers = f"{left} answers in {self.log.path.name} are to questions"
            one = f"an answer in {self.log.path.name} is to a question"
            self.streams.note(f"{answers if left > 1 else one} that the input does not have")

    def _note_missing(self, first: Line) -> None:
        """Say that images are missing: of a pipe, only its first line can be looked at before the model is loaded."""
        if self.census is None:
            if is_missing(first):
                what = f"an image is missing (line {first.number}: {shown(first.image)})"
                self.streams.note(f"{what}; those of a pipe are relative to the working folder, or to --image-folder")
        elif self.census.first_missing is not None:
            line, missing = self.census.first_missing, self.census.missing
            count = f"{missing} of {self.census.todo} images are" if missing > 1 else "an image is"
            more = "".join(f", {cut(name)}" for name in self.census.missing_names[1:])
            self.streams.note(f"{count} missing (line {line.number}: {line.source!s}{more}); check --image-folder")

    def _introduce(self, model: Model, first: Line) -> None:
        if model.is_demo and first.failure is None:
            with suppress(Exception):  # an image that cannot be opened is reported in its line
                if not is_scene(first.source):
                    self.streams.note(DEMO_NOTE)
        if self.streams.verbosity >= VERBOSE:
            shown = {name: value for name, value in self.chosen.items() if value not in (None, False)}
            self.streams.say(report.settings(model.describe(self.runs[0]) | shown, self.runs[0]))

    def _answer(self, model: Model, lines: Iterator[Line]) -> str:
        """Take the answers of every line; returns how it ended."""
        total = None if self.census is None else self.census.answers
        stop = self.interrupts.stop
        with self.interrupts, Progress(self.streams, self.tally, total, crowded=self.results.crowded) as progress:
            held = InFlight(stop)
            self.stream = stream = model.sweep(self._items(model, lines, held), self.runs, self.batch, stop)
            try:
                for answers in stream:
                    held.done()
                    self.results.take(answers)
                    self.suspects.take(answers)
                    for answer in answers:
                        self.tally.add(answer)
                        progress.advance()
                    if self.fail_fast and self.tally.failed:
                        return "stopped at the first failure"
            finally:
                stop.set()  # also ends a reader that waits for standard input
                stream.close()
        return "interrupted" if self.interrupts.happened else "finished"

    def _lines(self) -> Iterator[Line]:
        """Give the lines with something left to do, in order."""
        for line in self.suspects.last(self.questions.ours(self.interrupts.stop)):
            left = self.questions.left(line)
            self.results.meet(line, left)
            if left:
                yield line

    def _items(self, model: Model, lines: Iterator[Line], held: InFlight) -> Iterator[Asked | list[Answer]]:
        """Give what the library takes of the lines, held back while too much of them waits in memory."""
        for line in lines:
            held.add(len(line.source) if isinstance(line.source, bytes) else 0)
            runs = {Setting.of(run).keeping(line.keep): run for run in reversed(self.runs)}
            left = [runs[setting] for setting in self.questions.left(line)]
            if line.failure is None:
                yield Asked(line.question, tuple(left), self.suspects.strikes(line))
            else:
                yield [line.refused(model.model_id, run) for run in left]

    def _conclude(self, outcome: str) -> None:
        self.suspects.save(self.recorded)
        made = self.results.made()
        try:
            self._sum_up(outcome, made)
        finally:
            self.results.publish(partial=outcome != "finished")

    def _sum_up(self, outcome: str, made: dict[str, Any]) -> None:
        stats = None if self.stream is None else self.stream.stats
        names = ("images_encoded", "cache_hits", "encodings_read", "encodings_bytes")
        counters = {name: 0 if stats is None else getattr(stats, name) for name in names}
        if self.tally.lines:
            if self.results.crowded and self.streams.stderr.isatty():
                self.streams.say("")
            self.streams.say(self.results.summary(self.tally, counters))
        if self.tally.failed:
            share, listed = self.results.failures(self.tally)
            self.streams.error(AdaFVError(f"{share} failed:"))
            self.streams.console.print(summary.failures(listed), soft_wrap=True)
        if self._defects:
            many = "failures are defects" if self._defects > 1 else "failure is a defect"
            what = f"{self._defects} {many} of adafv or of a library, not of the input"
            hint = "" if self.streams.verbosity >= DEBUG else "run with -vv for the tracebacks"
            self.streams.error(AdaFVError(what, hint))
        if outcome != "finished" or self.tally.failed:
            self._say_how_to_resume(finished=outcome == "finished")
        if self.report is not None:
            counters["skipped"] = self.questions.skipped
            described = {} if self.model is None else self.model.describe(self.runs[0])
            self.report.write(self.tally, outcome, described, counters, made, self.results.documented)

    def _say_how_to_resume(self, *, finished: bool) -> None:
        if self.log is None or not self.log.regular:
            if not finished:
                self.streams.say(f"{self.tally.lines} lines were written; a run with -o FILE can be resumed")
            return
        doing = "redo what failed" if finished else "go on"
        piped = ", with the same input" if self.questions.source.file is None else ""
        text = Text(f"{doing}{piped}:\n  ").append(resume_command(sys.argv[1:], self.processes), "bold")
        self.streams.console.print(text, soft_wrap=True)
