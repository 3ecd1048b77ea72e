"""One run of `adafv batch` or `adafv sweep`: load, answer, and an end in good order whatever happens.

What becomes of the answers is its `Results`; a batch is a sweep with one setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from adafv.errors import ServerError
from adafv.records import Answer
from adafv.settings import BatchSettings, RunSettings
from adafv.streaming.runs import Asked
from adafv_cli.console import ReaderGone, Streams
from adafv_cli.exits import Exit
from adafv_cli.interrupts import Interrupts
from adafv_cli.loading import tell_news
from adafv_cli.progress import Progress
from adafv_cli.rendering.run_report import RunReport
from adafv_cli.rendering.tally import Tally
from adafv_cli.work.earlier import Setting
from adafv_cli.work.ending import COUNTERS, Ending, defects
from adafv_cli.work.lines import Line
from adafv_cli.work.notes import introduce, note_leftovers, note_missing
from adafv_cli.work.outlog import Log
from adafv_cli.work.questions import Census, Questions, no_question
from adafv_cli.work.results import Results
from adafv_cli.work.source import InFlight
from adafv_cli.work.suspects import Suspects

if TYPE_CHECKING:
    from adafv.engine import Model
    from adafv.spreading.cluster import Cluster
    from adafv.spreading.stream import SpreadStream
    from adafv.streaming.streams import SweepStream


@dataclass(kw_only=True)
class Run:
    """Everything that was chosen and checked.

    Args:
        streams: of the process.
        opened: loads the model, or finds those of a cluster, for as long as they are used.
        batch: settings of the library.
        runs: what each line is answered under.
        questions: the lines to answer, under the same settings.
        census: of the input, unless it is a pipe.
        log: where answers go, if into a file.
        recorded: the settings that a resumed run has to repeat; `dtype` becomes what it has come to.
        results: what becomes of the answers.
        report: file for the report, if one was asked for.
        chosen: other settings by name, to be shown.
        fail_fast: stop at the first line that fails.
        processes: that a launcher started to do this, this one among them.
        began: called with the type of the weights when the model has loaded and the log is begun.
    """

    streams: Streams
    opened: Callable[[], AbstractContextManager[Model | Cluster]]
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
    began: Callable[[str], None] = lambda dtype: None
    tally: Tally = field(init=False)
    interrupts: Interrupts = field(init=False)
    model: Model | Cluster | None = field(init=False, default=None)
    told: Sequence[str] = field(init=False, default=())
    stream: SweepStream | SpreadStream | None = field(init=False, default=None)
    suspects: Suspects = field(init=False)

    def go(self) -> Exit:
        """Answer everything, and return how it went.

        Raises:
            AdaFVError: nothing to ask, no model, no room on the disk, or the model gave up.
            ReaderGone: nobody reads stdout any more.
        """
        self.interrupts, self.suspects = Interrupts(self.streams), Suspects(self.log)
        if len(self.runs) == 1:  # a sweep's curve is of the input's alone
            note_leftovers(self.streams, self.questions, self.census, self.log)
        lines = self._lines()
        first = next(lines, None)
        self.tally = Tally()
        if first is None:
            return self._nothing()
        note_missing(self.streams, self.census, first)
        with self.streams.library_noise(), self.opened() as model:
            self.model, self.told = model, model.notes
            introduce(self.streams, model, self.runs[0], first, self.chosen)
            dtype = str(model.describe()["dtype"])
            self.recorded["dtype"] = dtype
            if self.log is not None:
                self.log.check_dtype(dtype)
                self.log.begin(self.suspects.beside(self.recorded))
            self.began(dtype)
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
        if defects(self.tally):
            return Exit.BUG
        return Exit.SOME_FAILED if self.tally.failed else Exit.OK

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

    def _answer(self, model: Model | Cluster, lines: Iterator[Line]) -> str:
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

    def _items(self, model: Model | Cluster, lines: Iterator[Line], held: InFlight) -> Iterator[Asked | list[Answer]]:
        """Give what the library takes of the lines, held back while too much of them waits in memory."""
        for line in lines:
            held.add(len(line.source) if isinstance(line.source, bytes) else 0)
            runs = {Setting.of(run).keeping(line.keep): run for run in reversed(self.runs)}
            left = [runs[setting] for setting in self.questions.left(line)]
            if line.failure is None:
                yield Asked(self.questions.question(line), tuple(left), self.suspects.strikes(line))
            else:
                yield [line.refused(model.model_id, run) for run in left]

    def _conclude(self, outcome: str) -> None:
        self.suspects.save(self.recorded)
        stats = None if self.stream is None else self.stream.stats
        described = {} if self.model is None else self.model.describe(self.runs[0])
        if self.model is not None:
            tell_news(self.model, self.told, self.streams)
        ending = Ending(
            self.streams, self.questions, self.log, self.results, self.report, self.processes, self.tally, outcome
        )
        ending.tell(described, {name: 0 if stats is None else getattr(stats, name) for name in COUNTERS})
