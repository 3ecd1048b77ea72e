"""`adafv bench`: what pruning saves on this machine, dense and pruned side by side, stock transformers beside both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adafv import __version__, pruners
from adafv.bench.geometries import GEOMETRIES, geometry
from adafv.errors import AdaFVError, InputError, shown
from adafv.settings import LoadSettings, RunSettings
from adafv.versions import check_versions
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import check_figure, check_report
from adafv_cli.loading import setting_errors
from adafv_cli.options import LoadFlags, OutputFlags, takes_flags
from adafv_cli.rendering import bench_table
from adafv_cli.writing import write_figure, write_json

if TYPE_CHECKING:
    from adafv.bench.records import Bench
    from adafv.bench.suite import Plan, Subjects

HELP = """
Measure what pruning saves on this machine: unpruned and pruned on the same
kernels, and transformers' own generate beside both.

[bold]Examples[/]
  adafv bench
  adafv bench --geometry llava-next-7b --keep 640,320,160
  adafv bench sample_images/street.png -m demo
  adafv bench photo.jpg -m llava-hf/llava-1.5-7b-hf --pruner all --json bench.json
  adafv bench --suite gpu --minutes 8 --json bench.json --plot bench.png

Without -m the weights are random, at a published geometry: the costs are real,
the answers are not. Variants take turns; a figure is the median of the rounds,
with the least and the most. Beside it stands what this machine needs at least:
its measured matrix rate for the FLOPs, or its memory for the weights.
"""

SUITES: dict[str, dict[str, Any]] = {
    "gpu": {
        "geometry": "llava-1.5-7b,llava-next-7b,llava-next-34b",
        "batch_size": "1,8,32,128",
        "pruner": "all",
    },
}

_flag = partial(typer.Option, rich_help_panel="Bench")


@dataclass(frozen=True)
class BenchFlags:
    """What is measured, and for how long."""

    geometry: Annotated[
        str | None,
        _flag(
            metavar="NAME,...", help=f"Random weights: {', '.join(GEOMETRIES)}.", show_default="the largest that fits"
        ),
    ] = None
    suite: Annotated[str | None, _flag(help=f"All that is to be known of a kind of machine: {', '.join(SUITES)}.")] = (
        None
    )
    keep: Annotated[str | None, _flag("-k", "--keep", help="Visual tokens kept: 192,64.", show_default="published")] = (
        None
    )
    pruner: Annotated[str | None, _flag(help="Pruners: adafv,divprune, or all; the first in all sections.")] = None
    batch_size: Annotated[str | None, _flag(metavar="N,...", help="Questions answered together.")] = None
    questions_per_image: Annotated[
        int, _flag(min=1, help="Questions that share an image; every --select is timed.")
    ] = 1
    max_new_tokens: Annotated[int, _flag(min=1, help="Length of each answer.")] = 16
    rounds: Annotated[int, _flag(min=1, help="Rounds at most.")] = 5
    minutes: Annotated[float, _flag(help="For everything; what does not fit is named.")] = 5.0
    json: Annotated[Path | None, _flag("--json", metavar="FILE", help="Write everything as one JSON object.")] = None
    plot: Annotated[Path | None, _flag(metavar="FILE", help="Draw it: a .png, .svg or .pdf.")] = None
    force: Annotated[bool, _flag("--force", help="Replace files of others.")] = False

    def plan(self, *, compile: bool) -> Plan:
        """Make the library's plan; `compile` as it has it.

        Raises:
            UsageError: a value that cannot be used.
        """
        from adafv.bench.suite import Plan

        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise UsageError(f"--minutes: {self.minutes:g} leaves no time", "give more than 0")
        names = self._chosen("pruner", "adafv")
        every = tuple(name for name in pruners.names() if name != "none")
        chosen = every if names.strip() == "all" else tuple(_items("pruner", names))
        for name in chosen:
            try:
                RunSettings(pruner=name)
            except InputError as error:
                raise UsageError(f"--{error.what}", error.fix) from error
        first = ("adafv",) if "adafv" in chosen else ()
        return Plan(
            keeps=() if self.keep is None else tuple(sorted(_numbers("keep", self.keep), reverse=True)),
            pruners=tuple(dict.fromkeys((*first, *chosen))),
            batch_sizes=tuple(_numbers("batch-size", self._chosen("batch_size", "1,8"))),
            per_picture=self.questions_per_image,
            new_tokens=self.max_new_tokens,
            compile=compile,
            rounds=self.rounds,
            minutes=self.minutes,
        )

    def names(self) -> list[str]:
        """List the geometries that were chosen, none where that is left to the machine.

        Raises:
            UsageError: an unknown suite or geometry.
        """
        if self.suite is not None and self.suite not in SUITES:
            raise UsageError(f"--suite: {shown(self.suite)} is unknown", f"choose from {', '.join(SUITES)}")
        names = self._chosen("geometry", "")
        found = _items("geometry", names) if names else []
        for name in found:
            try:
                geometry(name)
            except InputError as error:
                raise UsageError(f"--{error.what}", error.fix) from error
        return found

    def _chosen(self, name: str, default: str) -> str:
        suite = SUITES.get(self.suite or "", {})
        own = getattr(self, name)
        return str(suite.get(name, default) if own is None else own)

    def check_files(self) -> None:
        """See that all files can be written.

        Raises:
            UsageError: one cannot.
        """
        if self.json is not None:
            check_report(self.json, flag="--json", force=self.force)
        if self.plot is not None:
            check_figure("--plot", self.plot, force=self.force)


@dataclass(frozen=True)
class BenchOutput(OutputFlags):
    """What is printed; `--json` is a file here."""

    as_json: Annotated[bool, typer.Option("--as-json", hidden=True)] = False


@takes_flags
def bench(
    ctx: typer.Context,
    bench: BenchFlags,
    load: LoadFlags,
    output: BenchOutput,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE", show_default=False, help="To ask a checkpoint about.")
    ] = None,
) -> None:
    """Run the command: check, measure until the time is over, show and save whatever there is."""
    streams: Streams = ctx.obj
    output.apply(streams)
    settings, names = load.settings(ctx), bench.names()
    source = ctx.get_parameter_source("model")
    loaded = bool(images) or (source is not None and source.name == "COMMANDLINE")
    if loaded and names:
        what = "--geometry and a checkpoint contradict each other"
        raise UsageError(what, "give -m MODEL with images, or --geometry")
    bench.check_files()
    check_versions()
    from adafv.bench.suite import run

    with streams.library_noise():
        plan = bench.plan(compile=settings.compile)
        with _steps(streams) as step:
            found, subjects = _prepared(settings, names, (images or []) if loaded else None, plan)
        found.settings |= asdict(plan)
        try:
            with _steps(streams) as step, setting_errors():
                run(subjects, plan, found, step)
        finally:  # interrupted, too: what was measured was measured
            _finish(streams, found, bench)


def _prepared(
    settings: LoadSettings, names: Sequence[str], images: Sequence[str] | None, plan: Plan
) -> tuple[Bench, Subjects]:
    from adafv.bench.setup import prepare

    try:
        return prepare(settings, names, images, plan)
    except InputError as error:
        raise UsageError(f"--{error.what.replace('_', '-', 1)}", error.fix) from error


def _finish(streams: Streams, found: Bench, flags: BenchFlags) -> None:
    """Show and save what was found, if anything was."""
    if not found.rows:
        return
    if flags.json is not None:
        content = {"adafv": __version__, "command": ["adafv", "bench"]} | found.to_json()
        try:
            write_json(flags.json, content)
        except OSError as error:
            raise AdaFVError(f"--json: cannot write {flags.json}: {error.strerror}", "check the disk") from error
    if flags.plot is not None:
        from adafv.figures import bars

        write_figure("--plot", flags.plot, lambda kind: bars.render(found.rows, kind, machine=found.machine.device))
    bench_table.show(streams, found)


@contextmanager
def _steps(streams: Streams) -> Iterator[Callable[[str], None]]:
    """Say what is going on: in place at a terminal, elsewhere a line for each section."""
    said: list[str] = []

    def line(what: str) -> None:
        section = what.partition(":")[0]
        if section not in said:
            said.append(section)
            streams.say(section)

    with streams.busy("looking at this machine") as update:
        yield update if streams.animated else line


def _items(flag: str, text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"--{flag}: {shown(text)} names none", "separate several with commas: a,b,c")
    return found


def _numbers(flag: str, text: str) -> list[int]:
    found = []
    for part in _items(flag, text):
        if not part.isascii() or not part.isdecimal() or not 1 <= int(part[:18]) <= 10**6:
            raise UsageError(f"--{flag}: {shown(part)} is no number from 1 on", "give numbers: 192,128,64")
        found.append(int(part))
    return found
