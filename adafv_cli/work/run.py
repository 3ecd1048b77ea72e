"""One run of `adafv batch`: load, answer, write, and an end in good order whatever happens.

`adafv sweep` is one too, with several answers to a line.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.text import Text

from adafv.errors import AdaFVError
from adafv.records import Answer
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv_cli.console import VERBOSE, ReaderGone, Streams
from adafv_cli.exits import Exit
from adafv_cli.interrupts import Interrupts
from adafv_cli.loading import DEMO_NOTE, is_scene, load_model
from adafv_cli.progress import Progress
from adafv_cli.rendering import report, summary
from adafv_cli.rendering.run_report import RunReport
from adafv_cli.rendering.tally import Tally
from adafv_cli.work.inflight import InFlight
from adafv_cli.work.jsonl import Line, encoded
from adafv_cli.work.outlog import Log
from adafv_cli.work.questions import Census, Questions, no_question

if TYPE_CHECKING:
    from adafv.engine import Model


@dataclass
class Run:
    """Everything that was chosen and checked.

    Args:
        streams: of the process.
        load, run, batch: settings of the library.
        questions: the lines to answer.
        census: of the input, unless it is a pipe.
        log: where answers go, `None` for stdout.
        recorded: the settings that a resumed run has to repeat.
        report: file for the report, if one was asked for.
        chosen: other settings by name, to be shown and reported.
        fail_fast: stop at the first line that fails.
    """

    streams: Streams
    load: LoadSettings
    run: RunSettings
    batch: BatchSettings
    questions: Questions
    census: Census | None
    log: Log | None
    recorded: dict[str, Any]
    report: RunReport | None
    chosen: dict[str, Any]
    fail_fast: bool
    tally: Tally = field(init=False)
    interrupts: Interrupts = field(init=False)
    stream: Any = None
    model: Model | None = None

    def go(self) -> Exit:
        """Answer everything, and return how it went.

        Raises:
            AdaFVError: nothing to ask, no model, no room on the disk, or the model gave up.
            ReaderGone: nobody reads stdout any more.
        """
        self.interrupts = Interrupts(self.streams)
        lines = self._lines()
        first = next(lines, None)
        if first is None:
            return self._nothing()
        self._note_missing()
        with self.streams.library_noise():
            self.model = load_model(self.load, self.streams)
            self._introduce(first)
            if self.log is not None:
                self.log.begin(self.recorded)
            self.tally = Tally()
            try:
                outcome = self._answer(chain([first], lines))
            except ReaderGone:
                raise
            except BaseException as error:
                outcome = f"failed: {error}"
                self._conclude(outcome)
                raise
            self._conclude(outcome)
        if outcome == "interrupted":
            return Exit.INTERRUPTED
        return Exit.SOME_FAILED if self.tally.failed else Exit.OK

    def _nothing(self) -> Exit:
        if not self.questions.lines:
            raise no_question(self.questions.source.name, None)
        done = self.questions.skipped
        here = f"all {done} lines are answered already" if done else "no line belongs to this shard"
        self.streams.say(f"nothing to do: {here}")
        return Exit.OK

    def _note_missing(self) -> None:
        if self.census is not None and self.census.first_missing is not None:
            line, missing = self.census.first_missing, self.census.missing
            count = f"{missing} of {self.census.todo} images are" if missing > 1 else "an image is"
            self.streams.note(f"{count} missing (line {line.number}: {line.source!s}); check --image-folder")

    def _introduce(self, first: Line) -> None:
        model = self._model
        if model.is_demo and first.failure is None:
            with suppress(Exception):  # an image that cannot be opened is reported in its line
                if not is_scene(first.source):
                    self.streams.note(DEMO_NOTE)
        if self.streams.verbosity >= VERBOSE:
            shown = {name: value for name, value in self.chosen.items() if value not in (None, False)}
            self.streams.say(report.settings(model.describe() | shown, self.run))

    @property
    def _model(self) -> Model:
        if self.model is None:
            raise AdaFVError("there is no model yet")
        return self.model

    def _answer(self, lines: Iterator[Line]) -> str:
        """Write an answer for every line; returns how it ended."""
        total = None if self.census is None else self.census.answers
        stop = self.interrupts.stop
        with self.interrupts, Progress(self.streams, self.tally, total, crowded=self._crowded) as progress:
            held = InFlight(stop)
            self.stream = stream = self._start(self._items(lines, held))
            try:
                for given in stream:
                    held.done()
                    for answer in self._received(given):
                        self._write(answer)
                        self._count(answer)
                        progress.advance()
                        if answer.error is not None and self.fail_fast:
                            return "stopped at the first failure"
            finally:
                stop.set()  # also ends a reader that waits for standard input
                stream.close()
        return "interrupted" if self.interrupts.happened else "finished"

    @property
    def _crowded(self) -> bool:
        """Whether the answers themselves appear on the terminal."""
        return self.log is None and self.streams.stdout.isatty()

    def _lines(self) -> Iterator[Line]:
        return self.questions.todo(self.interrupts.stop)

    def _items(self, lines: Iterator[Line], held: InFlight) -> Iterator[Any]:
        for line in lines:
            held.add(len(line.source) if isinstance(line.source, bytes) else 0)
            yield self._item(line)

    def _item(self, line: Line) -> Any:
        """What the library takes of a line."""
        return line.question if line.failure is None else line.refused(self._model.model_id, self.run)

    def _start(self, items: Iterator[Any]) -> Any:
        """The library's stream."""
        return self._model.stream(items, self.run, self.batch, self.interrupts.stop)

    def _received(self, given: Any) -> Sequence[Answer]:
        """The answers of what the stream gave for a line."""
        return [given]

    def _count(self, answer: Answer) -> None:
        self.tally.add(answer)

    def _write(self, answer: Answer) -> None:
        if self.log is not None:
            self.log.write(answer)
        else:
            self.streams.data(encoded(answer, ascii_only=self.streams.ascii_data))

    def _conclude(self, outcome: str) -> None:
        counters = {
            "images_encoded": getattr(getattr(self.stream, "stats", None), "images_encoded", 0),
            "cache_hits": getattr(getattr(self.stream, "stats", None), "cache_hits", 0),
        }
        self._summarise(counters)
        if self.tally.failed:
            self._tell_failures(self.tally, f"{len(self.tally.failed)} of {self.tally.lines} lines")
        if outcome != "finished" or self.tally.failed:
            self._say_how_to_resume(finished=outcome == "finished")
        if self.report is not None:
            counters["skipped"] = self.questions.skipped
            described = {} if self.model is None else self.model.describe()
            self.report.write(self.tally, outcome, described, counters, self._made())

    def _summarise(self, counters: dict[str, int]) -> None:
        if self.tally.lines:
            self.streams.say(summary.summary(self.tally, **counters))

    def _tell_failures(self, failed: Tally, share: str) -> None:
        self.streams.error(AdaFVError(f"{share} failed:"))
        self.streams.console.print(summary.failures(failed), soft_wrap=True)

    def _made(self) -> dict[str, Any]:
        """What else belongs into the report."""
        return {}

    def _say_how_to_resume(self, *, finished: bool) -> None:
        if self.log is None:
            if not finished:
                self.streams.say(f"{self.tally.lines} lines were written; a run with -o FILE can be resumed")
            return
        doing = "redo what failed" if finished else "go on"
        piped = ", with the same input" if self.questions.source.file is None else ""
        text = Text(f"{doing}{piped}:\n  ").append(resume_command(sys.argv[1:]), "bold")
        self.streams.console.print(text, soft_wrap=True)


def resume_command(args: list[str]) -> str:
    """The command line of a run, made to go on with its output."""
    kept = [arg for arg in args if arg not in ("--force", "--resume")]
    return shlex.join(["adafv", *kept[:1], "--resume", *kept[1:]])
