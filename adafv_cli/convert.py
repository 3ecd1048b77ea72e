"""`adafv convert IN OUT`: LLaVA's original format, or a model with an adapter, into one Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from adafv.errors import InputError, cut
from adafv.settings import LoadSettings
from adafv.versions import check_versions
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.loading import setting_errors
from adafv_cli.options import LoadFlags, OutputFlags, same, takes_flags

HELP = """
Write a checkpoint in Hugging Face format.

[bold]Examples[/]
  adafv convert liuhaotian/llava-v1.6-mistral-7b llava-mistral
  adafv convert checkpoints/my-llava OUT --vision-tower openai/clip-vit-large-patch14-336
  adafv convert checkpoints/my-llava-lora OUT --base lmsys/vicuna-7b-v1.5

IN is a checkpoint in LLaVA's original format, or a LoRA adapter, which is merged
into its base. OUT is a folder that does not exist yet; it appears when it is
complete. Weights keep their type. `-m IN` does the same at every start.
"""


@dataclass(frozen=True)
class ConvertFlags:
    """Where a checkpoint's parts come from."""

    base: Annotated[str | None, same(LoadFlags, "base")] = None
    vision_tower: Annotated[str | None, same(LoadFlags, "vision_tower")] = None
    revision: Annotated[str | None, same(LoadFlags, "revision")] = None
    offline: Annotated[bool, same(LoadFlags, "offline")] = False


@dataclass(frozen=True)
class ConvertOutput:
    """What is said."""

    quiet: Annotated[bool, same(OutputFlags, "quiet")] = False
    verbose: Annotated[int, same(OutputFlags, "verbose")] = 0


@takes_flags
def convert(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="IN", help="Checkpoint folder or hub id.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to be made.")],
    flags: ConvertFlags,
    output: ConvertOutput,
) -> None:
    """Run the command: find everything, write it beside OUT, then name it OUT, and print that."""
    streams: Streams = ctx.obj
    OutputFlags(quiet=output.quiet, verbose=output.verbose).apply(streams)
    check_versions()
    settings = LoadSettings(
        source,
        base=flags.base,
        vision_tower=flags.vision_tower,
        revision=flags.revision,
        offline=flags.offline,
    )
    with streams.library_noise(), streams.busy(f"converting {cut(source)}"):
        from adafv.loading.conversion import convert as write

        with setting_errors(), _argument_errors():
            write(settings, folder)
    streams.data(str(folder))


@contextmanager
def _argument_errors() -> Iterator[None]:
    """Speak of IN and OUT where one of them is what cannot be used."""
    try:
        yield
    except InputError as error:
        name, _, rest = error.what.partition(":")
        argument = {"model": "IN", "folder": "OUT"}.get(name)
        if argument is None:
            raise
        raise UsageError(f"{argument}:{rest}", error.fix) from error
