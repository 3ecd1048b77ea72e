"""`adafv bench`: what pruning saves on this machine, dense and pruned side by side, stock transformers beside both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from adafv import __version__
from adafv.errors import AdaFVError, InputError
from adafv.settings import LoadSettings
from adafv.versions import check_versions
from adafv_cli.benchflags import BenchFlags
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
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
    """Show and save what was found, if anything was.

    Raises:
        UsageError: nothing was, and nobody broke it off.
    """
    if not found.rows and found.partial:
        return
    if not found.rows:
        why = "; ".join(map(bench_table.unmeasured, found.unmeasured))
        raise UsageError(f"nothing was measured ({why})", "give more --minutes, or fewer --sections and --batch-size")
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
