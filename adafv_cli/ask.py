"""`adafv ask IMAGE QUESTION...`: answers on stdout, a report of what they cost on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from adafv.errors import AdaFVError, shown
from adafv.records import Answer
from adafv.settings import RunSettings
from adafv_cli.console import VERBOSE, Streams
from adafv_cli.exits import Exit
from adafv_cli.inputs import image_and_questions
from adafv_cli.loading import load_for_image, tell_news
from adafv_cli.options import OutputFlags, RunFlags, takes_flags
from adafv_cli.rendering import report
from adafv_cli.serverflags import ServedFlags

if TYPE_CHECKING:
    from adafv.engine import Model

HELP = """
Answer questions about one image.

[bold]Examples[/]
  adafv ask sample_images/street.png "what color is the sign?"
  adafv ask photo.jpg "what is this?" "how many?" -m llava-hf/llava-1.5-7b-hf
  adafv ask photo.jpg "what is this?" --keep 128 --compare
  curl -sL URL | adafv ask - "what is this?" --json | jq .flops

Answers go to stdout, one line each, and the report to stderr. Several
questions share one encoding of the image. IMAGE - reads the image from
standard input; without QUESTION the question is read from there.
"""


@takes_flags
def ask(
    ctx: typer.Context,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file, or - for standard input.")],
    load: ServedFlags,
    run: RunFlags,
    output: OutputFlags,
    questions: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUESTION", show_default=False, help="One or more; default: read from standard input."),
    ] = None,
) -> None:
    """Run the command: check everything that needs no model, load it, answer, report."""
    streams: Streams = ctx.obj
    output.apply(streams)
    load_settings, run_settings = load.settings(ctx), run.settings(ctx)
    load.check(run_settings)
    source, asked = image_and_questions(image, questions or [], streams, "adafv ask")
    with streams.library_noise():
        model = load_for_image(source, load_settings, run_settings, streams)
        answers, told = [], model.notes
        for answer in _answers(model, source, asked, run_settings, streams):
            _print(answer, streams, as_json=output.as_json, alone=len(asked) == 1)
            answers.append(answer)
        tell_news(model, told, streams)
    if not output.as_json:
        _report(answers, run_settings.max_new_tokens, streams)
    if any(answer.error for answer in answers):
        raise typer.Exit(Exit.SOME_FAILED)


def _answers(
    model: Model, source: str | bytes, questions: list[str], settings: RunSettings, streams: Streams
) -> Iterator[Answer]:
    answers = model.answer(source, questions, settings)
    for number in range(1, len(questions) + 1):
        count = f" {number} of {len(questions)}" if len(questions) > 1 else ""
        with streams.busy(f"answering{count}"):
            answer = next(answers, None)
        if answer is None:
            return
        yield answer


def _print(answer: Answer, streams: Streams, *, as_json: bool, alone: bool) -> None:
    """Write one answer to stdout. Of several, the nth line is the nth answer, empty where it failed."""
    if as_json:
        streams.record(answer.to_json())
    elif alone and answer.text is not None:
        streams.data(answer.text)
    elif not alone:
        streams.data(" ".join((answer.text or "").split("\n")))
    if answer.error is not None:
        streams.error(AdaFVError(f"{shown(answer.prompt)}: {answer.error.message}", answer.error.fix))


def _report(answers: list[Answer], max_new_tokens: int, streams: Streams) -> None:
    answered = [answer for answer in answers if answer.error is None]
    if not answered:
        return
    if streams.stdout.isatty() and streams.stderr.isatty():
        streams.say("")
    bars, details = streams.coloured and streams.unicode, streams.verbosity >= VERBOSE
    if len(answers) == 1:
        streams.say(report.single(answers[0], bars=bars, details=details))
    else:
        for answer in answered if details else []:
            streams.say(answer.prompt)
            streams.say(report.single(answer, bars=bars, details=True))
            streams.say("")
        streams.say(report.several(answers))
    for note in report.cut_off(answers, max_new_tokens):
        streams.note(note)
