"""`adafv sweep INPUT`: quality against cost on the user's own questions, over budgets and pruners."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from adafv import __version__, pruners
from adafv.settings import LoadSettings, RunSettings
from adafv.streaming.runs import blind
from adafv_cli.console import Streams
from adafv_cli.exits import Exit, UsageError
from adafv_cli.loading import loaded
from adafv_cli.options import OutputFlags, takes_flags
from adafv_cli.rendering.run_report import RunReport
from adafv_cli.serverflags import ServedFlags
from adafv_cli.sweepflags import GridFlags, SweepFlags
from adafv_cli.work.earlier import Keys, Setting
from adafv_cli.work.gathered import Gathered
from adafv_cli.work.questions import Questions
from adafv_cli.work.recorded import KNOWN, known_in, unsaid_positions
from adafv_cli.work.run import Run
from adafv_cli.work.shard import Shard
from adafv_cli.work.sweep_results import SweepResults
from adafv_cli.work.world import World
from adafv_cli.workflags import INPUT_HELP, WorkFlags, all_settings, made_with, typed

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
    load_settings, runs, batch_settings = load.settings(ctx), _runs(ctx, run, load), flags.settings()
    wording = flags.wording
    wanted = sweep.wanted(output, flags, runs)
    if sweep.floors:
        runs.append(blind(runs[0]))
    asked = next((one for one in runs if one.pruner not in ("none", pruners.FLOOR)), runs[0])
    shard = Shard.parse(flags.shard)
    lines = wording.source(source, flags.image_folder, streams)
    own = typed(sweep) | {"input": source} | run.axes | _of_pruned(asked)
    with ExitStack() as stack:
        delivery = stack.enter_context(flags.delivery(source, streams))
        flags.check_files(streams, lines.file, sweep.plot)
        gathered = Gathered.of(lines, shard, runs)
        recorded = _recorded(load_settings, runs, flags, _of_pruned(asked), gathered)
        keys = Keys(flags.repeated_ids, settings=True, positions=recorded["positions"])
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
            report=RunReport(flags.report, all_settings(load_settings, runs[0], flags) | own) if flags.report else None,
            chosen=own | asdict(flags),
            fail_fast=flags.fail_fast,
            began=lambda _: delivery.begin(),
        )
        code = job.go()
        delivery.end(code)
        sweep.write_answer_files(log, questions.settings, results.own, wording.benchmark)
    if code != Exit.OK:
        raise typer.Exit(code)


def _runs(ctx: typer.Context, run: GridFlags, load: ServedFlags) -> list[RunSettings]:
    """List the settings to compare, each of which can be answered by what was asked for; raises `UsageError`."""
    runs = run.runs(ctx)
    for one in runs:
        load.check(one)
    if World.of(os.environ).size > 1:
        raise UsageError("a sweep compares in one process", "leave torchrun out, or give each its --shard and -o")
    return runs


def _of_pruned(run: RunSettings) -> dict[str, str]:
    """List what the unpruned run has not, and what is recorded of a sweep therefore comes from a pruned one."""
    return {"crop_budget": run.crop_budget, "tiles": str(run.tiles)}


def _recorded(
    load: LoadSettings,
    runs: Sequence[RunSettings],
    flags: WorkFlags,
    of_pruned: dict[str, str],
    gathered: Gathered | None,
) -> dict[str, Any]:
    """List what a later run must share to go on with the log."""
    left = flags.file if flags.resume else None
    positions = unsaid_positions(left, {run.positions for run in runs if run.pruner != "none"})
    found = made_with(load, runs[0], flags) | {"command": "sweep", "positions": positions} | of_pruned
    found |= known_in(left) if left is not None else {}
    return found if gathered is None else found | {KNOWN: gathered.digest}
