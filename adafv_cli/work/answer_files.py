"""Writes a log's answers as files for others: one for each setting in LLaVA's form, and what benchmark servers take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import Benchmark
from adafv.budget import Budget
from adafv.errors import AdaFVError, cut
from adafv.records import QuestionId
from adafv_cli.exits import UsageError
from adafv_cli.work.earlier import Keys, Setting
from adafv_cli.writing import write_bytes


@dataclass
class OwnBudgets:
    """Remembers the budgets of lines that have one.

    Args:
        keys: by what answers are told apart.
    """

    keys: Keys
    budgets: dict[int, Budget] = field(default_factory=dict)

    def add(self, question_id: QuestionId, text: str, keep: Budget | None) -> None:
        """Remember the budget of a line."""
        if keep is not None:
            self.budgets[self._key(question_id, text)] = keep

    def stands_for(self, answer: Mapping[str, Any], setting: Setting) -> bool:
        """Tell whether an answer as it was read is one under a setting."""
        keep = self.budgets.get(self._key(answer["question_id"], str(answer["prompt"])))
        return setting.keeping(keep) == self.keys.setting(answer)

    def _key(self, question_id: QuestionId, text: str) -> int:
        return self.keys.key(question_id, text, Setting("", ""))


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
    flag: str, folder: Path, log: Path, settings: Iterable[Setting], benchmark: Benchmark | None, own: OwnBudgets
) -> None:
    """Write the answers of each setting into a file of their own, in the order of the log; what failed is "".

    Args:
        flag: that names the folder, for messages.
        folder: gets `PRUNER-KEEP.jsonl` and, of a benchmark that is marked on a server, `PRUNER-KEEP.submission.*`.
        log: where the answers are.
        settings: which of them.
        benchmark: whose submissions are written, too.
        own: budgets of lines that have one; they are in the files of all settings that they stand for.

    Raises:
        AdaFVError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for setting in settings:
            found = [one for one in _answers(log) if own.stands_for(one, setting)]
            name = "unpruned" if setting.pruner == "none" else f"{setting.pruner}-{setting.keep}"
            name += "" if setting.positions == "compact" else f"-{setting.positions}"
            name += "" if setting.select == "question" else f"-{setting.select}"
            lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
            write_bytes(folder / f"{name}.jsonl", lines.encode("utf-8", "surrogatepass"))
            if benchmark is not None and benchmark.submission is not None:
                write_bytes(folder / f"{name}.submission{benchmark.kind}", benchmark.submission(found))
    except OSError as error:
        raise AdaFVError(f"{flag}: cannot write to {folder}: {error.strerror}", "check the disk") from error


def write_submission(flag: str, path: Path, log: Path, benchmark: Benchmark) -> None:
    """Write what a benchmark's server takes of all answers of a log; what failed is "".

    Raises:
        AdaFVError: it cannot be written.
    """
    if benchmark.submission is None:
        return
    try:
        write_bytes(path, benchmark.submission(list(_answers(log))))
    except OSError as error:
        raise AdaFVError(f"{flag}: cannot write {path}: {error.strerror}", "check the disk") from error


def _answers(log: Path) -> Iterator[dict[str, Any]]:
    with log.open("rb") as file:
        for line in file:
            answer = json.loads(line)
            yield answer | {"text": answer["text"] or "", "prompt": answer["prompt"] or ""}
