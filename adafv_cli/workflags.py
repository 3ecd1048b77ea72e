"""The flags of the commands that work through a file of questions, and the settings that they come to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from adafv import chat_templates
from adafv.benchmark_files import BENCHMARKS
from adafv.errors import InputError, cut, shown
from adafv.settings import SELECTS, BatchSettings, LoadSettings, RunSettings
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import check_apart, check_figure, check_folder, check_report, written_into
from adafv_cli.options import OneRunFlags
from adafv_cli.work.addresses import Address, located, work_path
from adafv_cli.work.asked import Wording
from adafv_cli.work.delivery import Delivery, delivery
from adafv_cli.work.earlier import Keys
from adafv_cli.work.outlog import Log
from adafv_cli.work.recorded import files_of

batch_flag = partial(typer.Option, rich_help_panel="Batch")

INPUT_HELP = "JSONL or Parquet, a path or an address (s3://...); data set folder; - for stdin."


@dataclass(frozen=True)
class ManyFlags(OneRunFlags):
    """How questions are answered where there may be many about an image."""

    select: Annotated[
        str,
        typer.Option(
            rich_help_panel="Pruning",
            help="question chooses for each; image, split: once for all about an image in INPUT, prefilled once.",
            autocompletion=lambda incomplete: [name for name in SELECTS if name.startswith(incomplete)],
        ),
    ] = RunSettings.select


@dataclass(frozen=True)
class WorkFlags:
    """What is read, how it is worked through, and where the answers go."""

    output: Annotated[
        str | None,
        batch_flag("-o", "--output", metavar="FILE", help="Append answers to FILE (or an address), not to stdout."),
    ] = None
    resume: Annotated[
        bool, batch_flag("--resume", help="Go on with FILE: skip what is answered, redo what failed.")
    ] = False
    force: Annotated[bool, batch_flag("--force", help="Replace files, also others' reports and plots.")] = False
    image_folder: Annotated[
        str | None, batch_flag(metavar="FOLDER", help="Where relative images are; default: beside INPUT.")
    ] = None
    batch_size: Annotated[str, batch_flag(metavar="N|auto", help="Questions answered together.")] = "auto"
    encodings: Annotated[
        Path | None, batch_flag(metavar="DIR", help="Keep image encodings there for further runs (16 GiB at most).")
    ] = None
    shard: Annotated[str | None, batch_flag(metavar="I/N", help="Only part I of N, from 1/N to N/N.")] = None
    repeated_ids: Annotated[bool, batch_flag("--repeated-ids", help="Lines with one id may ask different things.")] = (
        False
    )
    benchmark: Annotated[
        str | None, batch_flag(metavar="NAME", help=f"INPUT is as published: {', '.join(BENCHMARKS)}.")
    ] = None
    answers: Annotated[Path | None, batch_flag(metavar="FILE", help="The benchmark's annotations, if apart.")] = None
    suffix: Annotated[
        str | None, batch_flag(metavar="TEXT", help="Put behind each question, on a line of its own.")
    ] = None
    limit: Annotated[int | None, batch_flag(metavar="N", help="Only the first N questions.")] = None
    fail_fast: Annotated[bool, batch_flag("--fail-fast", help="Stop at the first line that fails.")] = False
    report: Annotated[
        Path | None,
        batch_flag(metavar="FILE", help="JSON of the run; a sweep also .md .tex .html."),
    ] = None

    def settings(self) -> BatchSettings:
        """Make the library's settings.

        Raises:
            UsageError: a value or a combination that cannot be used.
        """
        if self.resume and self.force:
            raise UsageError("--resume and --force contradict each other", "give one of the two")
        if self.resume and self.file is None:
            raise UsageError("--resume needs -o FILE", "only a file can be resumed")
        size: Any = self.batch_size.strip().lower()
        try:
            return BatchSettings(
                batch_size="auto" if size == "auto" else int(size),
                encodings=None if self.encodings is None else str(self.encodings),
            )
        except (ValueError, InputError):
            what = f"--batch-size: {shown(self.batch_size)} is no batch"
            raise UsageError(what, "give 1 or more, or auto") from None

    @property
    def wording(self) -> Wording:
        """How the questions are taken; raises `UsageError`."""
        return Wording.of(self.benchmark, self.answers, self.suffix, self.limit)

    def check_files(
        self, streams: Streams, source: Path | Address | None, plot: Path | None = None, submission: Path | None = None
    ) -> None:
        """See that all files can be written, and that none is the input, used twice, or somebody else's.

        Args:
            streams: a file behind standard input is not written either.
            source: the input, `None` where it can be read only once.
            plot: a figure that is drawn, too.
            submission: a file for a benchmark's server that is written, too.

        Raises:
            UsageError: one cannot.
        """
        if self.encodings is not None:
            check_folder("--encodings", self.encodings)
        if self.force and self.file is None and self.report is None and plot is None:
            raise UsageError("--force needs -o FILE", "only a file can be replaced")
        if self.resume and self.file is not None and written_into(self.file):
            raise UsageError(f"--resume: -o {cut(str(self.file))} is no file to go on with", "leave --resume out")
        written = [] if self.file is None else [(path, "-o") for path in files_of(self.file)]
        more = ((self.report, "--report"), (plot, "--plot"), (submission, "--submission"))
        written += [(path, flag) for path, flag in more if path is not None]
        read = source if isinstance(source, Path) else None
        check_apart(streams.stdin, streams.stdout, (read, self.answers), written)
        if self.report is not None:
            check_report(self.report, force=self.force)
        if plot is not None:
            check_figure("--plot", plot, force=self.force)

    def log(self, stack: ExitStack, keys: Keys, settings: Mapping[str, Any], streams: Streams) -> Log | None:
        """Open the log of the answers until the stack ends, and compare it with what they are to be made with.

        Args:
            stack: closes it.
            keys: by what answers are told apart.
            settings: of this run.
            streams: where to say that not all could be compared.

        Raises:
            UsageError, InputError: it cannot be written, or not gone on with.
        """
        if self.file is None:
            return None
        log = stack.enter_context(Log(self.file, resume=self.resume, force=self.force, keys=keys))
        log.check(settings)
        if log.found.first is not None and not log.settings_path.exists():
            streams.note(f"{log.settings_path.name} is gone: only what the answers say could be compared")
        return log

    @property
    def file(self) -> Path | None:
        """Where answers go, `None` for stdout; of an address, what stands for it here."""
        if self.output is None or self.output == "-":
            return None
        place = located(self.output)
        return work_path(place) if isinstance(place, Address) else place

    def delivery(self, source: str, streams: Streams, *, dry: bool = False) -> Delivery:
        """Make what brings answers to an address, where `-o` is one; raises `UsageError` where it cannot be used."""
        return delivery(self.output, source, resume=self.resume, force=self.force, streams=streams, dry=dry)


def made_with(load: LoadSettings, run: RunSettings, flags: WorkFlags) -> dict[str, Any]:
    """List what two runs must share to write into one file: all that changes an answer, but keep and pruner."""
    found: dict[str, Any] = {
        name: getattr(load, name) for name in ("model", "revision", "dtype", "quantize", "base", "vision_tower")
    }
    found["engine"] = "transformers" if load.server is None else "server"
    found["chat_template"] = chat_templates.identity(load.chat_template)
    pruning, asking = ("positions", "crop_budget", "tiles"), ("system", "pad", "protocol")
    names = (*pruning, *asking, "max_new_tokens", "temperature", "top_p", "seed")
    found |= {name: getattr(run, name) for name in names} | {"repeated_ids": flags.repeated_ids}
    return found | {"benchmark": flags.benchmark, "suffix": flags.suffix}


def all_settings(load: LoadSettings, run: RunSettings, flags: WorkFlags) -> dict[str, Any]:
    """Collect all settings for the report."""
    chosen = {flag.name: getattr(run, flag.name) for flag in fields(run) if flag.name != "budget"}
    return asdict(load) | chosen | {"keep": run.budget.text} | typed(flags)


def typed(flags: Any) -> dict[str, Any]:
    """List a command's flags (a dataclass) as they were typed, for the report."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(flags).items()}
