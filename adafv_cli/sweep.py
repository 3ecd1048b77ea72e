"""`adafv sweep INPUT`: quality against cost on the user's own questions, over budgets and pruners."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from adafv import __version__, pruners
from adafv.benchmark_files.base import Benchmark
from adafv.errors import AdaFVError, shown
from adafv.quality.metrics import GROUPED_BY, METRICS
from adafv.quality.reference import Reference
from adafv.settings import Positions, RunSettings, Select
from adafv.streaming.runs import blind, grid
from adafv_cli.batch import all_settings, made_with, typed
from adafv_cli.console import Streams
from adafv_cli.exits import Exit, UsageError
from adafv_cli.files import written_into
from adafv_cli.loading import loaded
from adafv_cli.options import OutputFlags, RunFlags, takes_flags
from adafv_cli.rendering.run_report import RunReport
from adafv_cli.serverflags import ServedFlags
from adafv_cli.work.answer_files import OwnBudgets, check_folder, write_answer_files
from adafv_cli.work.earlier import Keys, Setting
from adafv_cli.work.gathered import Gathered
from adafv_cli.work.outlog import Log
from adafv_cli.work.questions import Questions
from adafv_cli.work.recorded import KNOWN, known_in, settings_in, settings_path
from adafv_cli.work.run import Run
from adafv_cli.work.shard import Shard
from adafv_cli.work.sweep_results import SweepResults, Wanted
from adafv_cli.work.world import World
from adafv_cli.workflags import INPUT_HELP, WorkFlags

HELP = """
Find out how few visual tokens your own questions need: answer them at
several budgets, by several pruners, each image encoded once, and compare.

[bold]Examples[/]
  adafv sweep sample_images/questions.jsonl
  adafv sweep questions.jsonl --keep 5%,10%,25%,50% --pruner adafv,saliency
  adafv sweep questions.jsonl -o answers.jsonl --plot curve.png
  adafv sweep questions.jsonl -o answers.jsonl --resume --pruner all

A line of INPUT is {"image": "a.jpg", "text": "what is it?", "answer": "cat"};
"answer" may be a list. Where no line has one, agreement with the unpruned
model is the quality. A table at a terminal, JSONL in a pipe. -o keeps every
answer, so that a sweep can be resumed, extended and looked at again.
"""

DEFAULT_BUDGETS = "5%,10%,25%,50%"

_flag = partial(typer.Option, rich_help_panel="Sweep")


@dataclass(frozen=True)
class GridFlags(RunFlags):
    """How questions are answered, with lists of budgets and of pruners."""

    keep: Annotated[str, _flag("-k", "--keep", help="Budgets to compare: 128,25%. The unpruned is always one.")] = (
        DEFAULT_BUDGETS
    )
    pruner: Annotated[str, _flag(help="Pruners to compare: adafv,saliency, or all.")] = RunSettings.pruner
    positions: Annotated[
        str, _flag(help="compact,original: renumber the kept tokens, leave their places, or both.")
    ] = RunSettings.positions
    select: Annotated[str, _flag(help="question,image,split: for each question, or once for an image's.")] = (
        RunSettings.select
    )
    compare: Annotated[bool, _flag("--compare", hidden=True)] = False

    def runs(self, ctx: typer.Context) -> list[RunSettings]:
        """List the unpruned run and all others.

        Raises:
            UsageError: a value that cannot be used.
        """
        if self.compare:
            raise UsageError("--compare: a sweep always compares with the unpruned model", "leave it out")
        rest = {flag.name: getattr(self, flag.name) for flag in fields(RunFlags)}
        rest |= {"keep": "all", "pruner": "none", "positions": RunSettings.positions}
        base = RunFlags(**rest).settings(ctx)
        every = [name for name in pruners.names() if name != "none"]
        named = every if self.pruner.strip() == "all" else _split("pruner", self.pruner)
        budgets, positions, selects = (_split(name, getattr(self, name)) for name in ("keep", "positions", "select"))
        try:
            return grid(base, named, budgets, cast(list[Positions], positions), cast(list[Select], selects))
        except AdaFVError as error:
            raise UsageError(f"--{error.what}", error.fix) from error


@dataclass(frozen=True)
class SweepFlags:
    """What a sweep makes of the answers."""

    metric: Annotated[str, _flag(help=f"{', '.join(METRICS)}: how answers are marked.")] = "auto"
    tolerance: Annotated[float, _flag(metavar="POINTS", help="Points of percent that a budget may cost.")] = 1.0
    by: Annotated[str | None, _flag(metavar="KEY", help="Quality for each value of this key of the lines, too.")] = None
    against: Annotated[
        str | None, _flag(metavar="PRUNER[@KEEP]", help="Paired differences to this setting, or to this pruner, too.")
    ] = None
    floors: Annotated[
        bool, _flag("--floors", help="What is right without the image, and how far from there each setting comes.")
    ] = False
    plot: Annotated[Path | None, _flag(metavar="FILE", help="Draw quality against cost: a .png, .svg or .pdf.")] = None

    answer_files: Annotated[
        Path | None, _flag(metavar="FOLDER", help="Also one file of answers for each setting, from -o.")
    ] = None

    def check_answer_files(self, flags: WorkFlags) -> None:
        """See that files of answers can be written; raises `UsageError`."""
        if self.answer_files is not None:
            if flags.file is None or written_into(flags.file):
                raise UsageError("--answer-files needs -o FILE", "the answers are taken from there")
            check_folder("--answer-files", self.answer_files, reused=flags.resume or flags.force)

    def write_answer_files(
        self, log: Log | None, settings: Sequence[Setting], own: OwnBudgets, benchmark: Benchmark | None
    ) -> None:
        """Write a file of answers for each setting, if that was asked for; raises `AdaFVError`."""
        if self.answer_files is not None and log is not None:
            names = "--answer-files", self.answer_files, log.path
            write_answer_files(*names, settings, benchmark, own)

    def wanted(self, output: OutputFlags, runs: Sequence[RunSettings], benchmark: Benchmark | None) -> Wanted:
        """Say what is to be made of the answers; a benchmark has a rule of its own, unless another is asked for.

        Raises:
            UsageError: a value that cannot be used.
        """
        if self.metric not in METRICS:
            raise UsageError(f"--metric: {shown(self.metric)} is unknown", f"choose from {', '.join(METRICS)}")
        if not 0 <= self.tolerance <= 100:
            what = f"--tolerance: {self.tolerance} is not between 0 and 100"
            raise UsageError(what, "give points of percent: 1 lets accuracy fall from 80 to 79")
        official = benchmark is not None and self.metric == "auto"
        metric = benchmark.metric if benchmark is not None and official else self.metric
        by = self.by or (benchmark.by if benchmark is not None else None) or GROUPED_BY.get(metric)
        return Wanted(metric, self.tolerance, by, self.plot, output.as_json, self._reference(runs), self.floors)

    def _reference(self, runs: Sequence[RunSettings]) -> Reference | None:
        if self.against is None:
            return None
        pruner, at, keep = self.against.partition("@")
        try:
            found = Reference(pruner, RunSettings(keep=keep).budget.text if at else None)
        except AdaFVError as error:
            raise UsageError(f"--against: {shown(self.against)}: {error.what}", error.fix) from error
        settings = [Setting.of(run) for run in runs]
        if all(found.place(settings, one) is None for one in settings):
            names = dict.fromkeys(setting.pruner for setting in settings if setting.pruner != "none")
            what = f"--against: {shown(self.against)} is no setting of this sweep, or its only one"
            raise UsageError(what, f"name a pruner that --pruner has ({', '.join(names)}), with @KEEP for one budget")
        return found


@takes_flags
def sweep(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="INPUT", help=INPUT_HELP)],
    run: GridFlags,
    sweep: SweepFlags,
    flags: WorkFlags,
    load: ServedFlags,
    output: OutputFlags,
) -> None:
    """Run the command: check all that needs no model, then answer and compare."""
    streams: Streams = ctx.obj
    output.apply(streams)
    load_settings, runs, batch_settings = load.settings(ctx), run.runs(ctx), flags.settings()
    for one in runs:
        load.check(one)
    if World.of(os.environ).size > 1:
        raise UsageError("a sweep compares in one process", "leave torchrun out, or give each its --shard and -o")
    wording = flags.wording
    wanted = sweep.wanted(output, runs, wording.benchmark)
    if sweep.floors:
        runs.append(blind(runs[0]))
    asked = next((one for one in runs if one.pruner not in ("none", pruners.FLOOR)), runs[0])
    shard = Shard.parse(flags.shard)
    lines = wording.source(source, flags.image_folder, streams)
    sweep.check_answer_files(flags)
    axes = {name: getattr(run, name) for name in ("keep", "pruner", "positions", "select")}
    of_pruned = {"crop_budget": asked.crop_budget, "tiles": str(asked.tiles)}  # the unpruned run has neither
    own = typed(sweep) | {"input": source} | axes | of_pruned
    settings = all_settings(load_settings, runs[0], flags) | own
    with ExitStack() as stack:
        delivery = stack.enter_context(flags.delivery(source, streams))
        flags.check_files(streams, lines.file, sweep.plot)
        recorded = made_with(load_settings, runs[0], flags) | {"command": "sweep", "positions": _unsaid(runs, flags)}
        recorded |= of_pruned
        keys = Keys(flags.repeated_ids, settings=True, positions=recorded["positions"])
        gathered = Gathered.of(lines, shard, runs)
        recorded |= known_in(flags.file) if flags.file is not None and flags.resume else {}
        recorded |= {} if gathered is None else {KNOWN: gathered.digest}
        log = flags.log(stack, keys, recorded, streams)
        done = log.found.done if log is not None else {}
        questions = Questions(lines, shard, done, keys, [Setting.of(one) for one in runs], gathered)
        results = SweepResults(streams, log, questions, wanted, load_settings.model)
        job = Run(
            streams=streams,
            opened=partial(loaded, load_settings, asked, streams),
            runs=runs,
            batch=batch_settings,
            questions=questions,
            census=questions.census() if lines.file is not None else None,
            log=log,
            recorded={"adafv": __version__} | recorded,
            results=results,
            report=RunReport(flags.report, settings) if flags.report else None,
            chosen=own | asdict(flags),
            fail_fast=flags.fail_fast,
            began=lambda _: delivery.begin(),
        )
        code = job.go()
        delivery.end(code)
        sweep.write_answer_files(log, questions.settings, results.own, wording.benchmark)
    if code != Exit.OK:
        raise typer.Exit(code)


def _unsaid(runs: Sequence[RunSettings], flags: WorkFlags) -> str:
    """Tell the positions of pruned answers that do not say: `compact`, but in a log from before they were an axis.

    Such a log of `original` ones is gone on with by those alone: it is refused, as it was, where others are asked for.
    """
    left = settings_in(settings_path(flags.file)).get("positions") if flags.file is not None and flags.resume else None
    asked = {run.positions for run in runs if run.pruner != "none"}
    return "original" if left == "original" and asked == {"original"} else "compact"


def _split(name: str, text: str) -> list[str]:
    """Split a list into its items.

    Raises:
        UsageError: there is none.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"--{name}: {shown(text)} names none", "separate several with commas: a,b,c")
    return found
