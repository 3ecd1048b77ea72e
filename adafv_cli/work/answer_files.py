"""Writes a log's answers as files for others: one for each setting in LLaVA's form, and what benchmark servers take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import Benchmark
from adafv.errors import AdaFVError, cut
from adafv_cli.exits import UsageError
from adafv_cli.files import write_bytes
from adafv_cli.work.earlier import Setting


def check_folder(flag: str, folder: Path, *, reused: bool) -> None:
    """See that answer files can go to a folder.

    Args:
        flag: that names it.
        folder: that is made where it is missing.
        reused: whether it may hold files already.

    Raises:
        UsageError: it is a file, or holds files.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{flag}: {cut(str(folder))} is no folder", "give a folder, which may be a new one")
    if not reused and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{flag}: {cut(str(folder))} is not empty", "--resume and --force write into it again")


def write_answer_files(
    flag: str, folder: Path, log: Path, settings: Iterable[Setting], benchmark: Benchmark | None
) -> None:
    """Write the good answers of each setting into a file of their own, in the order of the log.

    Args:
        flag: that names the folder, for messages.
        folder: gets `PRUNER-KEEP.jsonl` and, of a benchmark that is marked on a server, `PRUNER-KEEP.submission.*`.
        log: where the answers are.
        settings: which of them.
        benchmark: whose submissions are written, too.

    Raises:
        AdaFVError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for setting in settings:
            found = list(_answers(log, setting))
            name = "unpruned" if setting.pruner == "none" else f"{setting.pruner}-{setting.keep}"
            name += "" if setting.positions == "compact" else f"-{setting.positions}"
            lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
            write_bytes(folder / f"{name}.jsonl", lines.encode("utf-8", "surrogatepass"))
            if benchmark is not None and benchmark.submission is not None:
                write_bytes(folder / f"{name}.submission{benchmark.kind}", benchmark.submission(found))
    except OSError as error:
        raise AdaFVError(f"{flag}: cannot write to {folder}: {error.strerror}", "check the disk") from error


def write_submission(flag: str, path: Path, log: Path, benchmark: Benchmark) -> None:
    """Write what a benchmark's server takes of all good answers of a log.

    Raises:
        AdaFVError: it cannot be written.
    """
    if benchmark.submission is None:
        return
    try:
        write_bytes(path, benchmark.submission(list(_answers(log, None))))
    except OSError as error:
        raise AdaFVError(f"{flag}: cannot write {path}: {error.strerror}", "check the disk") from error


def _answers(log: Path, setting: Setting | None) -> Iterator[dict[str, Any]]:
    with log.open("rb") as file:
        for line in file:
            answer = json.loads(line)
            made = Setting(answer["pruner"], answer["keep"], answer.get("positions") or "compact")
            if answer["error"] is None and setting in (None, made):
                yield answer
