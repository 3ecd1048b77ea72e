"""What `adafv sweep` is asked for: the settings it compares, and what it makes of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from adafv import pruners
from adafv.benchmark_files.base import Benchmark
from adafv.errors import AdaFVError, shown
from adafv.quality.metrics import GROUPED_BY, METRICS
from adafv.quality.reference import Reference
from adafv.settings import Positions, RunSettings, Select
from adafv.streaming.runs import grid
from adafv_cli.exits import UsageError
from adafv_cli.files import written_into
from adafv_cli.options import OutputFlags, RunFlags
from adafv_cli.work.answer_files import OwnBudgets, check_folder, write_answer_files
from adafv_cli.work.earlier import Setting
from adafv_cli.work.outlog import Log
from adafv_cli.work.sweep_results import Wanted
from adafv_cli.workflags import WorkFlags

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

    @property
    def axes(self) -> dict[str, str]:
        """What is compared, each list as it was typed."""
        return {name: getattr(self, name) for name in ("keep", "pruner", "positions", "select")}

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

    def write_answer_files(
        self, log: Log | None, settings: Sequence[Setting], own: OwnBudgets, benchmark: Benchmark | None
    ) -> None:
        """Write a file of answers for each setting, if that was asked for; raises `AdaFVError`."""
        if self.answer_files is not None and log is not None:
            names = "--answer-files", self.answer_files, log.path
            write_answer_files(*names, settings, benchmark, own)

    def wanted(self, output: OutputFlags, flags: WorkFlags, runs: Sequence[RunSettings]) -> Wanted:
        """Say what is to be made of the answers; a benchmark has a rule of its own, unless another is asked for.

        Raises:
            UsageError: a value that cannot be used.
        """
        if self.metric not in METRICS:
            raise UsageError(f"--metric: {shown(self.metric)} is unknown", f"choose from {', '.join(METRICS)}")
        if not 0 <= self.tolerance <= 100:
            what = f"--tolerance: {self.tolerance} is not between 0 and 100"
            raise UsageError(what, "give points of percent: 1 lets accuracy fall from 80 to 79")
        benchmark = flags.wording.benchmark
        official = benchmark is not None and self.metric == "auto"
        metric = benchmark.metric if benchmark is not None and official else self.metric
        by = self.by or (benchmark.by if benchmark is not None else None) or GROUPED_BY.get(metric)
        found = Wanted(metric, self.tolerance, by, self.plot, output.as_json, self._reference(runs), self.floors)
        self._check_answer_files(flags)
        return found

    def _check_answer_files(self, flags: WorkFlags) -> None:
        if self.answer_files is not None:
            if flags.file is None or written_into(flags.file):
                raise UsageError("--answer-files needs -o FILE", "the answers are taken from there")
            check_folder("--answer-files", self.answer_files, reused=flags.resume or flags.force)

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


def _split(name: str, text: str) -> list[str]:
    """Split a list into its items.

    Raises:
        UsageError: there is none.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"--{name}: {shown(text)} names none", "separate several with commas: a,b,c")
    return found
