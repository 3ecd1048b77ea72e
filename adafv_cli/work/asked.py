"""What of an input is asked, and how: a benchmark's files, an instruction behind every question, the first few only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from adafv.benchmark_files import BENCHMARKS
from adafv.benchmark_files.base import Benchmark, asked
from adafv.errors import cut, shown
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import is_folder, is_there
from adafv_cli.work.addresses import Address, located
from adafv_cli.work.fields import line_of
from adafv_cli.work.lines import Line
from adafv_cli.work.source import Source


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How the questions of an input are taken.

    Args:
        benchmark: whose files they are, `None` for lines of JSON.
        answers: its annotations, where they are kept apart.
        suffix: an instruction that is put behind every question; `None` for the benchmark's own, or none.
        limit: how many questions, from the first; `None` for all.
    """

    benchmark: Benchmark | None = None
    answers: Path | None = None
    suffix: str | None = None
    limit: int | None = None

    @classmethod
    def of(cls, benchmark: str | None, answers: Path | None, suffix: str | None, limit: int | None) -> Wording:
        """Check what a user typed.

        Raises:
            UsageError: an unknown benchmark, annotations that are missing or of nothing, no question at all.
        """
        if benchmark is not None and benchmark not in BENCHMARKS:
            known = ", ".join(BENCHMARKS)
            raise UsageError(f"--benchmark: {shown(benchmark)} is not one of {known}", f"choose from {known}")
        if answers is not None and benchmark is None:
            raise UsageError("--answers needs --benchmark", "name the benchmark whose annotations they are")
        if answers is not None and not is_there(answers):
            raise UsageError(f"--answers: {cut(str(answers))} is not there", "check the path")
        if limit is not None and limit < 1:
            raise UsageError(f"--limit: {limit} asks nothing", "give 1 or more")
        return cls(
            benchmark=None if benchmark is None else BENCHMARKS[benchmark], answers=answers, suffix=suffix, limit=limit
        )

    def source(self, name: str, images: str | None, streams: Streams) -> Source:
        """Open an input; raises `UsageError` as `Source.of`, and where a benchmark is piped."""
        image_folder = None if images is None else located(images)
        if isinstance(image_folder, Path) and not is_folder(image_folder):
            raise UsageError(f"--image-folder: {cut(str(image_folder))} is no folder", "check the path")
        if self.benchmark is None:
            found = Source.of(name, image_folder, streams)
            plain = self.suffix is None and self.limit is None
            return found if plain else WordedSource(**vars(found), wording=self)
        path = located(name)
        if isinstance(path, Address):
            what = f"input {shown(name)}: files of {self.benchmark.name} are read from this machine"
            raise UsageError(what, "copy them, and give the file or its folder")
        if name == "-" or not is_there(path):
            raise UsageError(f"input {shown(name)}: no file of {self.benchmark.name}", "give the file, or its folder")
        folder = image_folder or (path if is_folder(path) else path.parent)
        return WordedSource(name, folder, path, wording=self)


@dataclass(frozen=True)
class WordedSource(Source):
    """A source whose questions are taken as a `Wording` says."""

    wording: Wording = Wording()

    def lines(self, stop: threading.Event | None = None) -> Iterator[Line]:
        """Read the lines; raises `InputError` where reading fails, or a benchmark's file is of another form."""
        worded = self._rows(stop) if self.wording.benchmark is not None else self._suffixed(stop)
        return islice(worded, self.wording.limit)

    def _rows(self, stop: threading.Event | None) -> Iterator[Line]:
        benchmark, path = self.wording.benchmark, self.file
        if benchmark is None or not isinstance(path, Path):
            return
        for number, row in benchmark.read(path, self.wording.answers):
            if stop is not None and stop.is_set():
                return
            text = asked(row["text"], benchmark.suffix, self.wording.suffix)
            yield line_of(number, partial(dict, row, text=text), self.folder)

    def _suffixed(self, stop: threading.Event | None) -> Iterator[Line]:
        for line in super().lines(stop):
            suffix = self.wording.suffix
            yield replace(line, text=f"{line.text.rstrip()}\n{suffix}") if suffix and line.text.strip() else line
