"""One run of `adafv sweep`: a batch with several answers to a line, and points of a curve at its end."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from adafv.quality.sheet import Sheet
from adafv.records import Answer
from adafv.settings import RunSettings
from adafv.streaming.runs import Asked
from adafv_cli.exits import Exit
from adafv_cli.figurefile import write_figure
from adafv_cli.rendering import units
from adafv_cli.rendering.sweep_table import made, show
from adafv_cli.rendering.tally import Failed, Tally
from adafv_cli.work.earlier import Setting
from adafv_cli.work.jsonl import Line
from adafv_cli.work.run import Run

if TYPE_CHECKING:
    from adafv.quality.points import Point

FEW_IMAGES = 20


@dataclass(frozen=True)
class Wanted:
    """What is to be made of the answers.

    Args:
        metric: one of `adafv.quality.metrics.METRICS`.
        tolerance: points of percent that the recommended budget may cost.
        by: a key of the lines by whose values they are grouped.
        plot: where to draw the curve.
        as_json: one object on stdout.
    """

    metric: str
    tolerance: float
    by: str | None
    plot: Path | None
    as_json: bool


@dataclass
class SweepRun(Run):
    """As `Run`, whose `run` is the unpruned one.

    Args:
        runs: all settings, the unpruned first.
        wanted: what is to be made of the answers.
    """

    runs: Sequence[RunSettings] = ()
    _recommendation: Any = None
    wanted: Wanted = field(default_factory=lambda: Wanted("auto", 1.0, None, None, False))

    def __post_init__(self) -> None:
        self._runs: dict[Setting, RunSettings] = {(run.pruner, run.budget.text): run for run in self.runs}
        self._sheet = Sheet(list(self._runs), self.wanted.by)
        self._asked: deque[int] = deque()
        self._points: list[Point] = []

    def _lines(self) -> Iterator[Line]:
        """The lines with something left to do; what was answered in an earlier run goes to the sheet."""
        for line in self.questions.ours(self.interrupts.stop):
            number = self._sheet.question(_image_key(line), line.metadata)
            left = self.questions.left(line)
            for setting in self._runs:
                if self.log is not None and setting not in left:
                    self._sheet.add(number, self.log.earlier(self.questions.key(line, setting)))
            if left:
                self._asked.append(number)
                yield line

    def _item(self, line: Line) -> Any:
        runs = [self._runs[setting] for setting in self.questions.left(line)]
        if line.failure is not None:
            return [line.refused(self._model.model_id, run) for run in runs]
        return Asked(line.question, tuple(runs))

    def _start(self, items: Iterator[Any]) -> Any:
        return self._model.sweep(items, self.runs, self.batch, self.interrupts.stop)

    @property
    def _crowded(self) -> bool:
        return False

    def _write(self, answer: Answer) -> None:
        if self.log is not None:
            self.log.write(answer)

    def _received(self, given: Any) -> Sequence[Answer]:
        number = self._asked.popleft()
        for answer in given:
            self._sheet.add(number, answer.to_json())
        return list(given)

    def _nothing(self) -> Exit:
        code = super()._nothing()
        self.tally = Tally()
        self._conclude("finished")
        return code

    def _conclude(self, outcome: str) -> None:
        from adafv.quality.points import points
        from adafv.quality.recommendation import marked, recommend

        found = points(self._sheet, self.wanted.metric)
        self._recommendation = recommend(found, self.wanted.tolerance)
        self._points = marked(found, self._recommendation)
        try:
            super()._conclude(outcome)
        finally:  # without -o, what is shown is all that there is of the answers
            if any(point.questions for point in self._points):
                self._publish(partial=outcome != "finished")

    def _publish(self, *, partial: bool) -> None:
        images = self._sheet.images
        if images < FEW_IMAGES:
            self.streams.note(f"questions about {images} image{'s' * (images > 1)}: the intervals are rough")
        if self.wanted.by is not None and not self._sheet.has_groups:
            self.streams.note(f"--by: no line has the key {self.wanted.by!r}")
        try:
            show(self.streams, self._points, self._recommendation, partial=partial, as_json=self.wanted.as_json)
        finally:  # whoever reads the points, or does not: the figure was asked for
            if self.wanted.plot is not None:
                write_figure("--plot", self.wanted.plot, lambda kind: self._drawn(kind, partial=partial))

    def _drawn(self, kind: str, *, partial: bool) -> bytes:
        from adafv.figures.curve import render

        return render(self._points, self._recommendation, kind, model=self.load.model, partial=partial)

    def _summarise(self, counters: dict[str, int]) -> None:
        if not self.tally.lines:
            return
        rate = f"{units.digits(self.tally.per_second)}/s"
        took = f"{self.tally.answered} in {units.duration(self.tally.seconds)}, {rate}"
        text = Text().append("answers".ljust(15), "bold").append(f"{took}, under {len(self.runs)} settings\n")
        images = f"{counters['images_encoded']} encoded, each for all settings\n"
        text.append("images".ljust(15), "bold").append(images)
        if self.tally.cut:
            text.append("cut off".ljust(15), "bold").append(f"{self.tally.cut} answers; --max-new-tokens takes more\n")
        text.rstrip()
        self.streams.say(text)

    def _tell_failures(self, failed: Tally, share: str) -> None:
        """Once for each question and reason, whatever the number of settings."""
        merged = Counter(failed.failed)
        once = Tally(failed=[_with_count(one, times, len(self.runs)) for one, times in merged.items()])
        questions = len({json.dumps(one.question_id) for one in merged})
        super()._tell_failures(once, f"{questions} question{'s' * (questions > 1)}")

    def _made(self) -> dict[str, Any]:
        return made(self._points, self._recommendation)


def _with_count(failed: Failed, times: int, settings: int) -> Failed:
    if times >= settings:
        return failed
    return replace(failed, message=f"{failed.message} (under {times} of {settings} settings)")


def _image_key(line: Line) -> int:
    """64 bits, equal for lines about one image as it is written; by number where there is none."""
    name = posixpath.normpath(line.image) if line.image else str(line.number)
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
