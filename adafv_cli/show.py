"""`adafv show IMAGE QUESTION -o FILE`: a picture of the visual tokens that were kept, and of why they were."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adafv_cli.console import VERBOSE, Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import check_apart, check_figure
from adafv_cli.inputs import image_and_questions
from adafv_cli.loading import load_for_image
from adafv_cli.options import LoadFlags, OneRunFlags, OutputFlags, takes_flags
from adafv_cli.rendering import report
from adafv_cli.rendering.rows import row
from adafv_cli.writing import write_figure

if TYPE_CHECKING:
    from adafv.explanation import Explanation

HELP = """
Draw which visual tokens an answer was made from, and which signal chose them.

[bold]Examples[/]
  adafv show sample_images/street.png "what color is the sign?" -o sign.png
  adafv show photo.jpg "what is this?" -m llava-hf/llava-v1.6-mistral-7b-hf -o a.pdf
  adafv show photo.jpg "what is this?" --json | jq '.words, .visual_tokens.kept'

The picture shows the image, its saliency (attention of \\[CLS], or attention
received where the tower has no \\[CLS]), its similarity to the question, and the
kept tokens in the color of the signal that chose them; the dropped area is
dimmed. Tiles of multi-crop images are drawn where they lie in the image. The
answer goes to stdout. An earlier picture is replaced, any other file with --force.
"""

SMALLEST_DPI, LARGEST_DPI = 50, 1200


@dataclass(frozen=True)
class PictureFlags:
    """Where the picture goes."""

    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", rich_help_panel="Picture", help="A .png, .svg or .pdf file."),
    ] = None
    dpi: Annotated[
        int, typer.Option("--dpi", metavar="N", rich_help_panel="Picture", help="Pixels per inch; it is 8 inches wide.")
    ] = 200
    force: Annotated[
        bool,
        typer.Option("--force", rich_help_panel="Picture", help="Replace any FILE."),
    ] = False

    def check(self, image: str, streams: Streams, *, as_json: bool) -> None:
        """Check what would only come to light after a model was loaded for nothing.

        Raises:
            UsageError: a file that cannot be drawn, or cannot be written.
        """
        if self.output is None:
            if not as_json:
                raise UsageError("-o FILE is missing", "-o picture.png draws one; --json gives the same as data")
            return
        read = None if image == "-" else Path(image)
        check_apart(streams.stdin, streams.stdout, [read], [(self.output, "-o")])
        check_figure("-o", self.output, force=self.force)
        if not SMALLEST_DPI <= self.dpi <= LARGEST_DPI:
            raise UsageError(f"--dpi: {self.dpi} is not between {SMALLEST_DPI} and {LARGEST_DPI}", "200 is the default")


@takes_flags
def show(
    ctx: typer.Context,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file, or - for standard input.")],
    picture: PictureFlags,
    load: LoadFlags,
    run: OneRunFlags,
    output: OutputFlags,
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", show_default=False, help="Default: read from standard input."),
    ] = None,
) -> None:
    """Run the command: check everything that needs no model, load it, answer, draw."""
    streams: Streams = ctx.obj
    output.apply(streams)
    load_settings, run_settings = load.settings(ctx), run.settings(ctx)
    if run_settings.compare:
        raise UsageError("--compare measures, and a picture is of one answer", "use adafv ask --compare")
    picture.check(image, streams, as_json=output.as_json)
    source, (asked,) = image_and_questions(image, [] if question is None else [question], streams, "adafv show")
    with streams.library_noise():
        model = load_for_image(source, load_settings, run_settings, streams)
        with streams.busy("answering"):
            explanation = model.explain(source, asked, run_settings)
        _print(explanation, run_settings.max_new_tokens, streams, as_json=output.as_json)
        if picture.output is not None:
            _draw(explanation, picture.output, picture.dpi, streams)


def _print(explanation: Explanation, max_new_tokens: int, streams: Streams, *, as_json: bool) -> None:
    if as_json:
        streams.record(explanation.to_json())
        return
    answer = explanation.answer
    streams.data(answer.text or "")
    if streams.stdout.isatty() and streams.stderr.isatty():
        streams.say("")
    bars, details = streams.coloured and streams.unicode, streams.verbosity >= VERBOSE
    streams.say(report.single(answer, bars=bars, details=details))
    for note in report.cut_off([answer], max_new_tokens):
        streams.note(note)


def _draw(explanation: Explanation, path: Path, dpi: int, streams: Streams) -> None:
    with streams.busy("drawing"):
        from adafv.figures.explanation import render

        write_figure("-o", path, lambda kind: render(explanation, kind, dpi))
    streams.say(row("picture", str(path)))
