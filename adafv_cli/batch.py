"""`adafv batch INPUT`: questions in JSONL, answers in JSONL, in order, as fast as the machine goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adafv import __version__
from adafv.benchmark_files import BENCHMARKS
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.spreading.settings import ClusterSettings
from adafv_cli.clusterflags import ClusterFlags
from adafv_cli.console import Streams
from adafv_cli.exits import Exit, UsageError
from adafv_cli.files import check_submission
from adafv_cli.loading import clustered, loaded
from adafv_cli.options import OutputFlags, takes_flags
from adafv_cli.rendering import units
from adafv_cli.rendering.rows import row
from adafv_cli.rendering.run_report import RunReport
from adafv_cli.serverflags import ServedFlags
from adafv_cli.work.answer_files import write_submission
from adafv_cli.work.delivery import Delivery
from adafv_cli.work.dryrun import DryRun
from adafv_cli.work.earlier import Found, Keys, Setting, read
from adafv_cli.work.gathered import Gathered
from adafv_cli.work.launch import Launch
from adafv_cli.work.outlog import Log
from adafv_cli.work.probe import probe
from adafv_cli.work.questions import Questions
from adafv_cli.work.recorded import KNOWN
from adafv_cli.work.results import BatchResults
from adafv_cli.work.run import Run
from adafv_cli.work.shard import Shard
from adafv_cli.work.source import Source
from adafv_cli.work.world import World
from adafv_cli.workflags import INPUT_HELP, ManyFlags, WorkFlags, all_settings, batch_flag, made_with

if TYPE_CHECKING:
    from adafv.engine import Model
    from adafv.spreading.cluster import Cluster

HELP = """
Answer the questions of a JSONL file: one line in, one line out, in order.

[bold]Examples[/]
  adafv batch sample_images/questions.jsonl
  adafv batch questions.jsonl --keep 128 -o answers.jsonl
  adafv batch questions.jsonl --keep 128 -o answers.jsonl --resume
  cat questions.jsonl | adafv batch - --image-folder photos > answers.jsonl

A line of INPUT is {"question_id": 7, "image": "a.jpg", "text": "what is this?"};
its own "keep", if it has one, wins over --keep.
At a terminal each line is an answer, in a pipe or a file it is JSON.
With -o, nothing is lost: a run that was interrupted or killed goes on with
--resume. A line that cannot be answered gets an error in its place.
"""


@dataclass(frozen=True)
class BatchFlags(WorkFlags):
    """What a batch reads, how it works and where its answers go."""

    dry_run: Annotated[bool, batch_flag("--dry-run", help="Check the input, estimate tokens and FLOPs, no model.")] = (
        False
    )
    probe: Annotated[bool, batch_flag("--probe", help="With --dry-run: guess the time from a short run.")] = False

    submission: Annotated[
        Path | None, batch_flag(metavar="FILE", help="With --benchmark: what its server takes, from -o.")
    ] = None

    def settings(self) -> BatchSettings:
        """Make the library's settings.

        Raises:
            UsageError: a value or a combination that cannot be used.
        """
        if self.submission is not None:
            benchmark = self.wording.benchmark
            if benchmark is None or benchmark.submission is None or self.file is None:
                marked = ", ".join(name for name, one in BENCHMARKS.items() if one.submission is not None)
                raise UsageError("--submission needs -o FILE and --benchmark", f"of these: {marked}")
            check_submission(self.submission, force=self.force)
        if self.probe and not self.dry_run:
            raise UsageError("--probe needs --dry-run", "a run that is no dry one shows its time as it goes")
        return super().settings()

    def write_submission(self) -> None:
        """Write what the benchmark's server takes, if that was asked for; raises `AdaFVError`."""
        benchmark = self.wording.benchmark
        if self.submission is not None and self.file is not None and benchmark is not None:
            write_submission("--submission", self.submission, self.file, benchmark)


@takes_flags
def batch(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="INPUT", help=INPUT_HELP)],
    flags: BatchFlags,
    load: ServedFlags,
    run: ManyFlags,
    cluster: ClusterFlags,
    output: OutputFlags,
) -> None:
    """Run the command: check all that needs no model, then answer."""
    streams: Streams = ctx.obj
    output.apply(streams)
    load_settings, run_settings, batch_settings = load.settings(ctx), run.settings(ctx), flags.settings()
    load.check(run_settings)
    if run_settings.compare:
        raise UsageError("--compare measures one question at a time", "use adafv ask --compare")
    spread = cluster.settings(os.environ)
    if spread is not None and flags.probe:
        raise UsageError("--probe runs here, and not on a cluster", "leave it out")
    lines = flags.wording.source(source, flags.image_folder, streams)
    with flags.delivery(source, streams, dry=flags.dry_run) as delivery:
        flags.check_files(streams, lines.file, submission=flags.submission)
        gathered = Gathered.of(lines, World.of(os.environ).share(Shard.parse(flags.shard)), [run_settings])
        job = _Job(source, flags, load_settings, run_settings, batch_settings, spread, delivery, gathered)
        code = job.dry_run(streams, lines) if flags.dry_run else job.answer(streams, lines, as_json=output.as_json)
        delivery.end(code)
    if code != Exit.OK:
        raise typer.Exit(code)


@dataclass(frozen=True)
class _Job:
    """A batch as it was asked for."""

    source: str
    flags: BatchFlags
    load: LoadSettings
    run: RunSettings
    batch: BatchSettings
    cluster: ClusterSettings | None
    delivery: Delivery
    gathered: Gathered | None

    def answer(self, streams: Streams, lines: Source, *, as_json: bool) -> Exit:
        """Answer all lines, or this process's share of them."""
        flags, keys, setting = self.flags, Keys(self.flags.repeated_ids), Setting.of(self.run)
        world, shard = World.of(os.environ), Shard.parse(flags.shard)
        launch = Launch(world, flags.file, resume=flags.resume, force=flags.force, keys=keys, recorded=self._recorded)
        launch.check(lines.file, flags.report)
        order = Questions(lines, shard, {}, keys, [setting]).in_order
        with launch:
            with ExitStack() as stack:
                alone = partial(flags.log, stack, keys, self._recorded, streams)
                log, found = launch.log(stack, order, alone, streams)
                questions = Questions(lines, world.share(shard), found.done, keys, [setting], self.gathered)
                code = self._run(streams, questions, log, launch, as_json=as_json).go()
            code = launch.end(code, order, streams)
        if world.rank == 0 and code in (Exit.OK, Exit.SOME_FAILED):  # or the server would mark half of the answers
            flags.write_submission()
        return code

    def _run(self, streams: Streams, questions: Questions, log: Log | None, launch: Launch, *, as_json: bool) -> Run:
        flags, world = self.flags, launch.world
        census = questions.census() if questions.source.file is not None else None
        chosen = {"input": self.source} | {flag.name: getattr(flags, flag.name) for flag in fields(flags)}
        everything = {"input": self.source} | all_settings(self.load, self.run, flags)
        opened: Callable[[], AbstractContextManager[Model | Cluster]]
        opened = partial(loaded, world.placed(self.load), self.run, streams)
        if self.cluster is not None:
            todo = None if census is None else census.todo
            opened = partial(clustered, self.cluster, self.load, self.run, todo, streams)
            everything |= {"engine": "ray"} | asdict(self.cluster)
            chosen |= {"engine": "ray"} | asdict(self.cluster)
        return Run(
            streams=streams,
            opened=opened,
            runs=[self.run],
            batch=self.batch,
            questions=questions,
            census=census,
            log=log,
            recorded={"adafv": __version__} | self._recorded | launch.mark,
            results=BatchResults(streams, log, as_json=as_json),
            report=RunReport(flags.report, everything) if flags.report else None,
            chosen=chosen,
            fail_fast=flags.fail_fast,
            processes=world.size,
            began=partial(self._began, launch),
        )

    def _began(self, launch: Launch, dtype: str) -> None:
        launch.begin(dtype)
        self.delivery.begin()

    @property
    def _recorded(self) -> dict[str, Any]:
        found = made_with(self.load, self.run, self.flags) | {"command": "batch"}
        found |= {} if self.gathered is None else {KNOWN: self.gathered.digest}
        return found | {"keep": self.run.budget.text, "pruner": self.run.pruner, "select": Setting.of(self.run).select}

    def dry_run(self, streams: Streams, source: Source) -> Exit:
        """Check what can be checked; nothing is written, and the output is read only to see what is left to do."""
        flags, found, keys = self.flags, Found(), Keys(self.flags.repeated_ids)
        if flags.file is not None and flags.file.exists():
            if flags.resume:
                found = read(flags.file, keys)
            elif flags.file.is_file() and flags.file.stat().st_size and not flags.force:
                raise UsageError(f"-o: {flags.file} exists", "--resume goes on with it, --force replaces it")
        shard, settings = Shard.parse(flags.shard), [Setting.of(self.run)]
        questions = Questions(source, shard, found.done, keys, settings, self.gathered)
        if source.file is not None:
            questions.census()
        dry = DryRun(streams, self.load, self.run, questions, addresses=self.cluster is not None)
        code = dry.go()
        if flags.probe and dry.first:
            dry.probe = probe(streams, self.load, self.run, self.batch, dry.first, dry.estimate.flops)
            if dry.probe is not None:
                took = f"{dry.probe.questions} questions took {units.duration(dry.probe.seconds)}"
                streams.say(row("time", f"about {units.duration(dry.probe.guess_s)}: {took}"))
        streams.record(dry.to_json())
        return code
