"""What a run says before it answers: of images that are missing, of answers to other questions, of the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from adafv.errors import cut, shown
from adafv.settings import RunSettings
from adafv_cli.console import VERBOSE, Streams
from adafv_cli.loading import DEMO_NOTE, is_scene
from adafv_cli.rendering import report
from adafv_cli.work.lines import Line
from adafv_cli.work.outlog import Log
from adafv_cli.work.questions import Census, Questions, is_missing

if TYPE_CHECKING:
    from adafv.engine import Model
    from adafv.spreading.cluster import Cluster


def note_leftovers(streams: Streams, questions: Questions, census: Census | None, log: Log | None) -> None:
    """Say that the output has answers to other questions."""
    left = len(questions.done) - census.known if census is not None and log is not None else 0
    if left and log is not None:
        answers = f"{left} answers in {log.path.name} are to questions"
        one = f"an answer in {log.path.name} is to a question"
        streams.note(f"{answers if left > 1 else one} that the input does not have")


def note_missing(streams: Streams, census: Census | None, first: Line) -> None:
    """Say that images are missing: of a pipe, only its first line can be looked at before the model is loaded."""
    if census is None:
        if is_missing(first):
            what = f"an image is missing (line {first.number}: {shown(first.image)})"
            streams.note(f"{what}; those of a pipe are relative to the working folder, or to --image-folder")
    elif census.first_missing is not None:
        line, missing = census.first_missing, census.missing
        count = f"{missing} of {census.todo} images are" if missing > 1 else "an image is"
        more = "".join(f", {cut(name)}" for name in census.missing_names[1:])
        streams.note(f"{count} missing (line {line.number}: {line.source!s}{more}); check --image-folder")


def introduce(
    streams: Streams, model: Model | Cluster, run: RunSettings, first: Line, chosen: Mapping[str, Any]
) -> None:
    """Say what the demo is for, where it is asked about something else, and with -v what was chosen."""
    if model.is_demo and first.failure is None:
        with suppress(Exception):  # an image that cannot be opened is reported in its line
            if not is_scene(first.source):
                streams.note(DEMO_NOTE)
    if streams.verbosity >= VERBOSE:
        shown = {name: value for name, value in chosen.items() if value not in (None, False)}
        streams.say(report.settings(model.describe(run) | shown, run))
