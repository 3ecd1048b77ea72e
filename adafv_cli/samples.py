"""`adafv samples [FOLDER]`: write the images that come with the tool, so that its examples can be tried anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adafv.demo import SAMPLES
from adafv.errors import cut
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import check_place
from adafv_cli.writing import write_bytes

HELP = """
Write two drawn images that the bundled demo knows, to try the examples on.

[bold]Examples[/]
  adafv samples
  adafv ask sample_images/street.png "what color is the sign?"

Their paths go to stdout. A file that is there already and differs is replaced
with --force only.
"""


def samples(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made where it is missing.")] = Path("sample_images"),
    force: Annotated[bool, typer.Option("--force", help="Replace other files of the same names.")] = False,
) -> None:
    """Run the command: check every file, then write all of them."""
    streams: Streams = ctx.obj
    contents = {folder / path.name: path.read_bytes() for path in sorted(SAMPLES.iterdir())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            check_place("FOLDER", path, content.__eq__, force=force)
        for path, content in contents.items():
            write_bytes(path, content)
            streams.data(str(path))
    except (OSError, ValueError) as error:  # ValueError: a text that can be no path
        reason = getattr(error, "strerror", None) or error
        what = f"FOLDER: {cut(str(folder))} cannot be written to: {reason}"
        raise UsageError(what, "give the path of another folder") from error
