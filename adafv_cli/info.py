"""`adafv info MODEL`: what a checkpoint is and what it will cost, without loading weights."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from adafv.budget import Budget
from adafv.errors import shown
from adafv.settings import LoadSettings, RunSettings
from adafv.versions import check_versions
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import is_there
from adafv_cli.loading import load_model, setting_errors
from adafv_cli.options import LoadFlags, OutputFlags, RunFlags, same, takes_flags
from adafv_cli.rendering import card

HELP = """
Describe a checkpoint: tokens, parameters, memory, FLOPs.

[bold]Examples[/]
  adafv info
  adafv info llava-hf/llava-1.5-7b-hf
  adafv info llava-hf/llava-v1.6-34b-hf --image 1024x768 --keep 10%
  adafv info checkpoints/mine --image photo.jpg --json | jq .parameters
  adafv info checkpoints/mine --probe photo.jpg --probe street.png

Configuration and tokenizer are read, no weights, unless --probe asks how well
the model's words point at the visual tokens of images. The table is for one answer to
one question, of the lengths that it states, at several budgets.
"""

TEXT_TOKENS, GENERATED = 64, 16  # of the answer that the table is for; half of the text is behind the image
BUDGETS = ("all", "50%", "25%", "128", "64")

_SIZE = re.compile(r"([0-9]{1,18})[xX]([0-9]{1,18})")


@dataclass(frozen=True)
class InfoFlags:
    """Which checkpoint, which image, which budget."""

    model: Annotated[str, same(LoadFlags, "model")] = LoadFlags.model
    revision: Annotated[str | None, same(LoadFlags, "revision")] = None
    chat_template: Annotated[str | None, same(LoadFlags, "chat_template")] = None
    offline: Annotated[bool, same(LoadFlags, "offline")] = False
    base: Annotated[str | None, same(LoadFlags, "base")] = None
    vision_tower: Annotated[str | None, same(LoadFlags, "vision_tower")] = None
    image: Annotated[
        str,
        typer.Option(
            metavar="WIDTHxHEIGHT|FILE", help="Size of the image, or a file that has it.", rich_help_panel="Pruning"
        ),
    ] = "640x480"
    keep: Annotated[str, same(RunFlags, "keep")] = RunFlags.keep
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE",
            help="Load the weights, and measure how well words point at this image's tokens; repeat it.",
            rich_help_panel="Pruning",
        ),
    ] = None

    device_map: Annotated[str, same(LoadFlags, "device_map")] = LoadFlags.device_map
    max_memory: Annotated[str | None, same(LoadFlags, "max_memory")] = None
    dtype: Annotated[str, same(LoadFlags, "dtype")] = LoadFlags.dtype

    def settings(self, ctx: typer.Context, positional: str | None) -> LoadSettings:
        """Say which checkpoint; a MODEL without -m counts more than the environment.

        Raises:
            UsageError: two different ones.
        """
        source = ctx.get_parameter_source("model")
        if positional and source is not None and source.name == "COMMANDLINE" and positional != self.model:
            raise UsageError(f"two models: {positional} and {self.model}", "give one, with or without -m")
        return LoadFlags(
            positional or self.model,
            chat_template=self.chat_template,
            revision=self.revision,
            offline=self.offline,
            base=self.base,
            vision_tower=self.vision_tower,
            device_map=self.device_map,
            max_memory=self.max_memory,
            dtype=self.dtype,
        ).settings(ctx)


@dataclass(frozen=True)
class InfoOutput(OutputFlags):
    """What is printed."""

    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel="Output")] = (
        False
    )


@takes_flags
def info(
    ctx: typer.Context,
    flags: InfoFlags,
    output: InfoOutput,
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="MODEL", show_default=False, help="The same as --model.")
    ] = None,
) -> None:
    """Run the command: read the configuration, count, print."""
    streams: Streams = ctx.obj
    output.apply(streams)
    settings = flags.settings(ctx, checkpoint)
    keep = RunFlags(keep=flags.keep).settings(ctx).budget
    for image in flags.probe or ():
        if not is_there(Path(image)):
            raise UsageError(f"--probe: {shown(image)} does not exist", "check the path")
    with streams.library_noise():
        width, height = _image_size(flags.image)
        with streams.busy(f"reading {settings.model}"):
            found = _plan(settings, width, height, keep)
        if flags.probe:
            model = load_model(settings, RunSettings(), streams)
            with streams.busy("probing"):
                found = replace(found, probes={image: model.probe(image) for image in flags.probe})
    if output.as_json:
        streams.record(found.to_json())
    else:
        streams.picture(card.text(found), wrap=False)


def _image_size(given: str) -> tuple[int, int]:
    """Read (width, height) of `640x480`, or of an image file.

    Raises:
        UsageError: neither.
        ImageError: a file that is no image.
    """
    from adafv.images import MAX_PIXELS, image_size

    size = _SIZE.fullmatch(given)
    if is_there(Path(given)):
        return image_size(given)
    if size is None:
        what = f"--image: {shown(given)} is neither a size nor a file"
        raise UsageError(what, "give WIDTHxHEIGHT in pixels (640x480), or the path of an image")
    width, height = int(size[1]), int(size[2])
    if not 1 <= width * height <= MAX_PIXELS:
        raise UsageError(f"--image: {given} is not between 1 and {MAX_PIXELS} pixels", "give a size such as 640x480")
    return width, height


def _plan(settings: LoadSettings, width: int, height: int, keep: Budget) -> card.Card:
    check_versions()
    from adafv.costs.description import describe
    from adafv.costs.plan import PromptPlan, plan_answer, plan_image, skips_tiles
    from adafv.families import family_of
    from adafv.loading.reading import configuration, describe_prompts
    from adafv.loading.source import locate

    with setting_errors():
        source = locate(settings)
        config = configuration(source)
        prompts = describe_prompts(source, config)
    image = plan_image(config, height, width)
    prompt = PromptPlan(TEXT_TOKENS // 2, TEXT_TOKENS // 2, GENERATED)
    runs = [RunSettings(keep=budget) for budget in _budgets(keep, image.visual)]
    costs = {run.budget.text: plan_answer(config, image, run, prompt) for run in runs}
    family = family_of(config).name
    counts = range(1, image.crops) if skips_tiles(config) else ()
    tiles = {count: plan_answer(config, image, RunSettings(keep=keep, tiles=count), prompt) for count in counts}
    return card.Card(
        settings.model, family, describe(config), prompts, width, height, image, prompt, keep, costs, tiles
    )


def _budgets(keep: Budget, visual: int) -> list[Budget]:
    """List the user's budget and those of the table that differ, the largest first."""
    chosen = {keep.tokens(visual): keep, visual: Budget.parse("all")}
    for text in BUDGETS:
        budget = Budget.parse(text)
        chosen.setdefault(budget.tokens(visual), budget)
    return [chosen[tokens] for tokens in sorted(chosen, reverse=True)]
