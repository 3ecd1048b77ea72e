"""What `adafv sweep` makes of its answers: points of a curve, a recommendation, a figure."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from adafv.budget import Budget
from adafv.errors import shown
from adafv.quality.sheet import Sheet
from adafv.records import Answer
from adafv_cli.console import Streams
from adafv_cli.rendering import units
from adafv_cli.rendering.rows import row
from adafv_cli.rendering.summary import stored
from adafv_cli.rendering.sweep_table import made, show
from adafv_cli.rendering.sweep_words import footnote, sentence, without_looking
from adafv_cli.rendering.tally import Failed, Tally
from adafv_cli.work.answer_files import OwnBudgets
from adafv_cli.work.earlier import Setting
from adafv_cli.work.lines import Line
from adafv_cli.work.outlog import Log
from adafv_cli.work.questions import Questions
from adafv_cli.writing import write_figure

if TYPE_CHECKING:
    from adafv.quality.points import Floors, Point
    from adafv.quality.recommendation import Recommendation
    from adafv.quality.reference import Reference

FEW_IMAGES = 50


@dataclass(frozen=True)
class Wanted:
    """Say what is to be made of the answers.

    Args:
        metric: one of `adafv.quality.metrics.METRICS`.
        tolerance: points of percent that the recommended budget may cost.
        by: a key of the lines by whose values they are grouped.
        against: a setting that the others are compared with, besides the unpruned.
        floors: whether to say what is right without the image.
        plot: where to draw the curve.
        as_json: one object on stdout.
    """

    metric: str
    tolerance: float
    by: str | None
    plot: Path | None
    as_json: bool
    against: Reference | None = None
    floors: bool = False


class SweepResults:
    """Several answers to a line, marked on a sheet; the log keeps them, too, where there is one.

    Args:
        streams: of the process.
        log: where answers go.
        questions: the lines that are asked.
        wanted: what is to be made of the answers.
        model: the checkpoint's name, for the figure.
    """

    crowded = False

    def __init__(self, streams: Streams, log: Log | None, questions: Questions, wanted: Wanted, model: str) -> None:
        self._streams, self._log, self._questions = streams, log, questions
        self._wanted, self._model = wanted, model
        self._sheet = Sheet(questions.settings, wanted.by, wanted.metric)
        self.own = OwnBudgets(questions.keys)
        self._asked: deque[tuple[int, Budget | None]] = deque()
        self._points: list[Point] = []
        self._recommendation: Recommendation | None = None
        self._floors: Floors | None = None

    def meet(self, line: Line, left: Sequence[Setting]) -> None:
        """Put a line on the sheet, with what was answered in an earlier run."""
        number = self._sheet.question(line.image_key, line.metadata)
        self.own.add(line.question_id, line.text, line.keep)
        for setting in self._questions.asked(line):
            if self._log is not None and setting not in left:
                self._mark(number, line.keep, self._log.earlier(self._questions.key(line, setting)))
        if left:
            self._asked.append((number, line.keep))

    def take(self, answers: Sequence[Answer]) -> None:
        """Mark the answers of a line, and write them.

        Raises:
            AdaFVError: they cannot be written.
        """
        number, keep = self._asked.popleft()
        for answer in answers:
            self._mark(number, keep, answer.to_json())
            if self._log is not None:
                self._log.write(answer)

    def _mark(self, number: int, keep: Budget | None, answer: Mapping[str, Any]) -> None:
        """Put an answer under its setting; one with the line's own budget under all that it stands for."""
        for setting in self._questions.settings:
            if setting.keeping(keep) == self._questions.keys.setting(answer):
                self._sheet.add(number, {**answer, **setting._asdict()})

    def summary(self, tally: Tally, counters: Mapping[str, int]) -> Text:
        """Say how many answers were made, and from how many encodings."""
        settings = len(self._questions.settings)
        counts = f"{tally.answered}" + (f", {len(tally.failed)} failed" if tally.failed else "")
        took = f"{counts} in {units.duration(tally.seconds)}, {units.digits(tally.per_second)}/s"
        rows = [row("answers", f"{took}, under {settings} settings")]
        rows.append(row("images", f"{counters['images_encoded']} encoded, each for all settings{stored(counters)}"))
        if tally.cut:
            rows.append(row("cut off", f"{tally.cut} answers; --max-new-tokens takes more, up to the model's context"))
        return Text("\n").join(rows)

    def failures(self, tally: Tally) -> tuple[str, Tally]:
        """Say how many questions failed: once for each question and reason, whatever the number of settings."""
        merged, settings = Counter(tally.failed), len(self._questions.settings)
        once = Tally(failed=[_with_count(one, times, settings) for one, times in merged.items()])
        questions = len({json.dumps(one.question_id) for one in merged})
        return f"{questions} question{'s' * (questions > 1)}", once

    def made(self) -> dict[str, Any]:
        """Work out the points and the recommendation."""
        from adafv.quality.points import floors, points, with_headroom
        from adafv.quality.recommendation import marked, recommend

        found = points(self._sheet, self._wanted.metric, self._wanted.against)
        if self._wanted.floors and found:
            self._floors = floors(self._sheet, found, self._wanted.metric)
            found = with_headroom(found, self._floors.highest)
        self._recommendation = recommend(found, self._wanted.tolerance)
        self._points = marked(found, self._recommendation)
        return made(self._points, self._recommendation, self._floors)

    @property
    def documented(self) -> SweepResults:
        """Itself: sentences and a figure."""
        return self

    def said(self) -> list[str]:
        """Say what is recommended, and what the comparison can tell."""
        if self._recommendation is None or not self._points:
            return []
        notes = [sentence(self._recommendation)]
        notes += [footnote(self._recommendation)] if self._recommendation.settings else []
        notes += [without_looking(self._floors)] if self._floors is not None else []
        return [note.plain for note in notes]

    def publish(self, *, partial: bool) -> None:
        """Show the points, and draw them; without -o, what is shown is all that there is of the answers."""
        if self._recommendation is None or not any(point.questions for point in self._points):
            return
        self._say_what_is_too_few(self._sheet.images, self._recommendation)
        if self._wanted.by is not None and not self._sheet.has_groups:
            self._streams.note(f"--by: no line has the key {shown(self._wanted.by)}")
        try:
            shown_with = {"partial": partial, "as_json": self._wanted.as_json}
            show(self._streams, self._points, self._recommendation, self._floors, **shown_with)
        finally:  # whoever reads the points, or does not: the figure was asked for
            if self._wanted.plot is not None:
                write_figure("--plot", self._wanted.plot, lambda kind: self.figure(kind, partial=partial))

    def _say_what_is_too_few(self, images: int, recommendation: Recommendation) -> None:
        needed, few = recommendation.images_needed, images < FEW_IMAGES
        said = ["the intervals are rough"] * few
        if needed is not None and recommendation.settings and images < needed and recommendation.point is None:
            points = f"{recommendation.tolerance:g} point{'s' * (recommendation.tolerance != 1)}"
            said.append(f"a recommendation within {points} needs {needed:,}, or more where answers are lost")
        if said:
            self._streams.note(f"questions about {images} image{'s' * (images > 1)}: {'; '.join(said)}")

    def figure(self, kind: str, *, partial: bool) -> bytes:
        """Draw the curve as a file's content."""
        from adafv.figures.curve import render

        if self._recommendation is None:
            return b""
        return render(self._points, self._recommendation, kind, model=self._model, partial=partial)


def _with_count(failed: Failed, times: int, settings: int) -> Failed:
    if times >= settings:
        return failed
    return replace(failed, message=f"{failed.message} (under {times} of {settings} settings)")
