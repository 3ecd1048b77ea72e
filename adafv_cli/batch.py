"""`adafv batch INPUT`: questions in JSONL, answers in JSONL, in order, as fast as the machine goes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from adafv import __version__
from adafv.errors import InputError
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv_cli import units
from adafv_cli.answers import Found, read
from adafv_cli.batchrun import Run
from adafv_cli.console import Streams
from adafv_cli.dryrun import DryRun
from adafv_cli.exits import Exit, UsageError
from adafv_cli.files import same_file
from adafv_cli.options import LoadFlags, OutputFlags, RunFlags, takes_flags
from adafv_cli.outlog import Log
from adafv_cli.probe import probe
from adafv_cli.questions import Questions, Shard
from adafv_cli.runreport import RunReport, check_report
from adafv_cli.source import Source

HELP = """
Answer the questions of a JSONL file: one line in, one line out, in order.

[bold]Examples[/]
  adafv batch sample_images/questions.jsonl
  adafv batch questions.jsonl --keep 128 -o answers.jsonl
  adafv batch questions.jsonl --keep 128 -o answers.jsonl --resume
  cat questions.jsonl | adafv batch - | jq -r 'select(.error==null) | .text'

A line of INPUT is {"question_id": 7, "image": "a.jpg", "text": "what is this?"}.
With -o, nothing is lost: a run that was interrupted or killed goes on with
--resume. A line that cannot be answered gets an error in its place.
"""

_flag = partial(typer.Option, rich_help_panel="Batch")


@dataclass(frozen=True)
class BatchFlags:
    """What a batch reads, how it works and where its answers go."""

    output: Annotated[
        Path | None, _flag("-o", "--output", metavar="FILE", help="Append answers to FILE, not to stdout.")
    ] = None
    resume: Annotated[bool, _flag("--resume", help="Go on with FILE: skip what is answered, redo what failed.")] = False
    force: Annotated[bool, _flag("--force", help="Replace FILE.")] = False
    image_folder: Annotated[
        Path | None, _flag(metavar="FOLDER", help="Where relative images are; default: beside INPUT.")
    ] = None
    batch_size: Annotated[str, _flag(metavar="N|auto", help="Questions answered together.")] = "auto"
    shard: Annotated[str | None, _flag(metavar="I/N", help="Only part I of N, from 1/N to N/N.")] = None
    repeated_ids: Annotated[bool, _flag("--repeated-ids", help="Lines with one id may ask different things.")] = False
    fail_fast: Annotated[bool, _flag("--fail-fast", help="Stop at the first line that fails.")] = False
    report: Annotated[Path | None, _flag(metavar="FILE.json", help="Write settings, totals, distributions.")] = None
    dry_run: Annotated[bool, _flag("--dry-run", help="Check the input, estimate tokens and FLOPs, no model.")] = False
    probe: Annotated[bool, _flag("--probe", help="With --dry-run: guess the time from a short run.")] = False

    def settings(self) -> BatchSettings:
        """The library's settings.

        Raises:
            UsageError: a value or a combination that cannot be used.
        """
        if self.resume and self.force:
            raise UsageError("--resume and --force contradict each other", "give one of the two")
        for name in ("resume", "force"):
            if getattr(self, name) and self.file is None:
                raise UsageError(f"--{name} needs -o FILE", "only a file can be resumed or replaced")
        if self.probe and not self.dry_run:
            raise UsageError("--probe needs --dry-run", "a run that is no dry one shows its time as it goes")
        size: Any = self.batch_size.strip().lower()
        try:
            return BatchSettings(batch_size="auto" if size == "auto" else int(size))
        except (ValueError, InputError):
            what = f"--batch-size: {self.batch_size!r} is no batch"
            raise UsageError(what, "give 1 or more, or auto") from None

    @property
    def file(self) -> Path | None:
        """Where answers go, `None` for stdout."""
        return None if self.output is None or str(self.output) == "-" else self.output


@takes_flags
def batch(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="JSONL file, or - for standard input.")],
    flags: BatchFlags,
    load: LoadFlags,
    run: RunFlags,
    output: OutputFlags,
) -> None:
    """Run the command: check all that needs no model, then answer."""
    streams: Streams = ctx.obj
    output.apply(streams)
    load_settings, run_settings, batch_settings = load.settings(ctx), run.settings(ctx), flags.settings()
    if run_settings.compare:
        raise UsageError("--compare measures one question at a time", "use adafv ask --compare")
    shard = Shard.parse(flags.shard)
    lines = Source.of(source, flags.image_folder, streams)
    check_report(flags.report, lines.file, flags.file)
    if same_file(lines.file, flags.file):
        raise UsageError(f"-o: {flags.output} is the input", "give the answers a file of their own")
    recorded = _recorded(load_settings, run_settings, flags)
    if flags.dry_run:
        raise typer.Exit(_dry_run(streams, load_settings, run_settings, batch_settings, flags, lines))
    with ExitStack() as stack:
        log = None
        if flags.file is not None:
            log = Log(flags.file, resume=flags.resume, force=flags.force, repeated_ids=flags.repeated_ids)
            stack.callback(log.close)
            log.check(recorded)
            if log.found.first is not None and not log.settings_path.exists():
                streams.note(f"{log.settings_path.name} is gone: only model, keep and pruner could be compared")
        questions = Questions(lines, shard, log.found.done if log is not None else {}, flags.repeated_ids)
        job = Run(
            streams,
            load_settings,
            run_settings,
            batch_settings,
            questions,
            questions.census() if lines.file is not None else None,
            log,
            {"adafv": __version__} | recorded,
            RunReport(flags.report, {"input": source} | _all_settings(load_settings, run_settings, flags))
            if flags.report
            else None,
            {"input": source} | {flag.name: getattr(flags, flag.name) for flag in fields(flags)},
            flags.fail_fast,
        )
        code = job.go()
    if code != Exit.OK:
        raise typer.Exit(code)


def _dry_run(
    streams: Streams, load: LoadSettings, run: RunSettings, batch: BatchSettings, flags: BatchFlags, source: Source
) -> Exit:
    """Check what can be checked; nothing is written, and the output is read only to see what is left to do."""
    found = Found()
    if flags.file is not None and flags.file.exists():
        if flags.resume:
            found = read(flags.file, flags.repeated_ids)
        elif flags.file.is_file() and flags.file.stat().st_size and not flags.force:
            raise UsageError(f"-o: {flags.file} exists", "--resume goes on with it, --force replaces it")
    questions = Questions(source, Shard.parse(flags.shard), found.done, flags.repeated_ids)
    if source.file is not None:
        questions.census()
    dry = DryRun(streams, load, run, questions)
    code = dry.go()
    if flags.probe and dry.first:
        dry.probe = probe(streams, load, run, batch, dry.first, dry.estimate.flops)
        if dry.probe is not None:
            took = f"{dry.probe.questions} questions took {units.duration(dry.probe.seconds)}"
            streams.say(f"{'time'.ljust(15)}about {units.duration(dry.probe.guess_s)}: {took}")
    streams.data(json.dumps(dry.to_json(), ensure_ascii=not streams.unicode))
    return code


def _recorded(load: LoadSettings, run: RunSettings, flags: BatchFlags) -> dict[str, Any]:
    """What two runs must share to write into one file: everything that changes an answer."""
    found: dict[str, Any] = {name: getattr(load, name) for name in ("model", "revision", "dtype", "quantize")}
    names = ("pruner", "positions", "system", "max_new_tokens", "temperature", "top_p", "seed")
    found |= {"keep": run.budget.text} | {name: getattr(run, name) for name in names}
    return found | {"repeated_ids": flags.repeated_ids}


def _all_settings(load: LoadSettings, run: RunSettings, flags: BatchFlags) -> dict[str, Any]:
    """For the report."""
    chosen = {flag.name: getattr(run, flag.name) for flag in fields(run) if flag.name != "budget"}
    typed = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(flags).items()}
    return asdict(load) | chosen | {"keep": run.budget.text} | typed
