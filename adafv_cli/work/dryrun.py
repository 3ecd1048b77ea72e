"""`adafv batch --dry-run`: what a run would meet and cost, from the input and the checkpoint's configuration alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from rich.text import Text

from adafv.errors import ImageError, InputError
from adafv.records import Answer, Failure, Question
from adafv.settings import LoadSettings, RunSettings
from adafv.spreading.places import opened
from adafv.versions import check_versions
from adafv_cli.console import Streams
from adafv_cli.exits import Exit
from adafv_cli.rendering import summary, units
from adafv_cli.rendering.rows import row
from adafv_cli.rendering.tally import Tally
from adafv_cli.work.estimate import (
    LETTERS_PER_TOKEN,
    TEMPLATE_AFTER,
    TEMPLATE_BEFORE,
    CostOf,
    Estimate,
    costs_of,
    generated,
)
from adafv_cli.work.lines import Line
from adafv_cli.work.probe import PROBED, Probe
from adafv_cli.work.questions import Questions, no_question

_REMEMBERED = 4_096  # images that are not looked at again
_LISTED = 100  # failed lines in the JSON object


class DryRun:
    """Looks at every line and at the header of every image; holds a few bytes for each.

    Args:
        streams: where the summary goes.
        load, run: what the run would be made with.
        questions: the lines to look at.
        addresses: whether images are read by their addresses, too, as a cluster does.
    """

    def __init__(
        self, streams: Streams, load: LoadSettings, run: RunSettings, questions: Questions, *, addresses: bool = False
    ) -> None:
        self._streams, self._load, self._run, self._questions = streams, load, run, questions
        self.tally, self.estimate, self.failed = Tally(), Estimate(), 0
        self.first: list[Question] = []
        self.probe: Probe | None = None
        self._size = lru_cache(_REMEMBERED)(_size_at if addresses else _image_size)

    def go(self) -> Exit:
        """Look at everything, print the summary, and return what a run would end with at best.

        Raises:
            CheckpointError: there is no configuration.
            InputError: no question, or a plan that cannot be made for any.
        """
        with self._streams.library_noise(), self._streams.busy("checking"):
            check_versions()
            from adafv.loading.reading import read_config

            cost = costs_of(read_config(self._load), self._run)
            for line in self._questions.todo():
                self._look_at(line, cost)
        if not self._questions.lines:
            raise no_question(self._questions.source.name, None)
        self._streams.say(self._summary())
        if self.failed:
            self._streams.console.print(summary.failures(self.tally), soft_wrap=True)
        return Exit.SOME_FAILED if self.failed else Exit.OK

    def _look_at(self, line: Line, cost: CostOf) -> None:
        if line.failure is not None:
            self._fail(line)
            return
        # Data URIs are not remembered: they are long, and seldom there twice.
        size = self._size(line.source) if isinstance(line.source, str) else _image_size(line.source)
        if isinstance(size, Failure):
            self._fail(replace(line, failure=size))
            return
        width, height = size
        text = -(-len(line.text) // LETTERS_PER_TOKEN)
        try:
            planned = cost(width, height, text, line.keep)
        except InputError as error:
            self._fail(replace(line, failure=Failure(type(error).__name__, error.what, error.fix)))
            return
        self.estimate.add(planned, line.source)
        if len(self.first) < PROBED:
            self.first.append(self._questions.question(line))

    def _fail(self, line: Line) -> None:
        self.failed += 1
        if self.failed <= _LISTED:
            self.tally.add(Answer(line.question_id, line.text, None, "", error=line.failure))

    def to_json(self) -> dict[str, Any]:
        """Make one object, for stdout."""
        estimate = self.estimate
        return {
            "lines": estimate.questions + self.failed,
            "skipped": self._questions.skipped,
            "questions": estimate.questions,
            "failed": self.failed,
            "images": estimate.images,
            "keep": self._run.budget.text,
            "at_most": estimate.bound,
            "pruner": self._run.pruner,
            "select": self._run.select,
            "tokens": {"visual": estimate.visual, "kept": estimate.kept, "text": estimate.text},
            "crops": estimate.crops,
            "flops": {
                "total": estimate.flops,
                "unpruned_total": estimate.unpruned_flops,
                "unpruned_shared_prefix": estimate.shared_unpruned_flops,
                "by_select": estimate.selects,
            },
            "questions_per_image": round(estimate.questions / max(1, estimate.images), 2),
            "break_even_questions_per_image": estimate.break_even,
            "assumed": {
                "template_tokens": TEMPLATE_BEFORE + TEMPLATE_AFTER,
                "letters_per_token": LETTERS_PER_TOKEN,
                "generated_tokens": generated(self._run),
            },
            "probe": None if self.probe is None else asdict(self.probe),
            "first_failed": [
                {"question_id": one.question_id, "type": one.type, "message": one.message} for one in self.tally.failed
            ],
        }

    def _summary(self) -> Text:
        estimate = self.estimate
        skipped = f", {self._questions.skipped} are answered already" if self._questions.skipped else ""
        failed = f", {self.failed} would fail" if self.failed else ""
        counts = f"{estimate.questions} questions, {estimate.images} images{failed}{skipped}"
        rows = [row("would answer", counts)]
        if estimate.questions:
            saved = 1 - estimate.kept / estimate.visual
            most = "at most " if estimate.bound else ""
            kept = (
                f"{most}{estimate.kept} of {estimate.visual} kept, {saved:.0%} saved; {estimate.crops} crops to encode"
            )
            spent = units.part_of(estimate.flops, estimate.unpruned_flops, units.DECIMAL, "FLOPs unpruned")
            less = units.less(estimate.flops, estimate.unpruned_flops)
            lengths = f"questions have {LETTERS_PER_TOKEN} letters a token and answers {generated(self._run)} tokens"
            rows += [row("visual tokens", kept), row("compute", f"{most or 'about '}{spent}, {less}")]
            rows.append(row("", f"if {lengths}", "dim"))
            rows += _break_even(estimate) if estimate.images < estimate.questions else []
        return Text("\n").join(rows)


def _break_even(estimate: Estimate) -> list[Text]:
    """Say what all tokens cost where an image is prefilled once for its questions, and when that is less."""
    each = f"{estimate.questions / estimate.images:.1f} questions an image"
    shared = units.amount(estimate.shared_unpruned_flops, units.DECIMAL, "FLOPs")
    cheaper = "less than" if estimate.shared_unpruned_flops < estimate.flops else "not less than"
    run = "this run may come to" if estimate.bound else "this run"
    rows = [row("break-even", f"all tokens, each image prefilled once: {shared}, {cheaper} {run}, at {each}")]
    if estimate.break_even is not None:
        most = estimate.break_even - 1
        rows.append(row("", f"this run costs less up to {most} question{'s' * (most != 1)} an image", "dim"))
    if estimate.selects:
        said = [f"{name} {units.amount(spent, units.DECIMAL, 'FLOPs')}" for name, spent in estimate.selects.items()]
        rows.append(row("--select", f"{', '.join(said)}{' at most' * ('split' in estimate.selects)}"))
    return rows


def _image_size(source: str | bytes) -> tuple[int, int] | Failure:
    """Width and height, or what is wrong: an error that is remembered must not hold on to its traceback."""
    from adafv.images import image_size

    try:
        return image_size(source)
    except ImageError as error:
        return Failure(type(error).__name__, error.what, error.fix)


def _size_at(source: str) -> tuple[int, int] | Failure:
    """Width and height of an image that may have an address."""
    try:
        return _image_size(opened(source))
    except ImageError as error:
        return Failure(type(error).__name__, error.what, error.fix)
