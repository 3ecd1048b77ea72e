"""The settings of a run, recorded in `FILE.settings.json` beside its answers, and compared when it goes on."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adafv.chat_templates import system_name
from adafv.errors import cut
from adafv.setup import Setup
from adafv_cli.exits import UsageError
from adafv_cli.files import status, written_into
from adafv_cli.writing import write_json

AUTO = "auto"  # as which older versions recorded a dtype; now it is what that came to
KNOWN = "known_questions"  # a digest of those that choose together
_CHOSEN = f"{KNOWN}: INPUT has other questions now, and those about an image choose together"
SUSPECTS = "suspects"  # keys of lines, and how often a server has died while it was at them
_BEFORE = {
    "crop_budget": "joint",
    "select": "question",
    "tiles": "all",
    "pad": None,
    "protocol": None,
    "benchmark": None,
    "suffix": None,
}  # of older versions, as they worked
_IN_LINES = {"model": "model_id", "pruner": "pruner", "keep": "keep"}  # setting: field of an answer


def settings_path(path: Path) -> Path:
    """Name the file that the settings of a log are recorded in."""
    return path.with_name(path.name + ".settings.json")


def compacting_path(path: Path) -> Path:
    """Name the copy without failed lines that then takes the place of a log."""
    return path.with_name(f".{path.name}.compacting")


def files_of(path: Path) -> list[Path]:
    """List every file that is replaced while a log at `path` is written.

    Raises:
        UsageError: a path that no file can have.
    """
    status("-o", path)
    if written_into(path):
        return [path]
    real = path.resolve()
    return [path, settings_path(real), compacting_path(real)]


def check_settings(path: Path, name: str | None = None) -> None:
    """See that what lies where the settings go is ours, for it will be replaced.

    Args:
        path: of it, or of a copy.
        name: for the message, of a copy.

    Raises:
        UsageError: it is not.
    """
    found = status("-o", path)
    if found is None or (stat.S_ISREG(found.st_mode) and (not found.st_size or settings_in(path))):
        return
    what = f"-o: its settings go to {cut(name or str(path))}, which exists, and adafv did not write it"
    raise UsageError(what, "give -o another name, or move that file away")


def settings_in(path: Path) -> dict[str, Any]:
    """Read the settings that a run left; empty for any other file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    ours = isinstance(found, dict) and "adafv" in found and isinstance(found.get("command"), str)
    return found if ours else {}


def suspects_in(path: Path) -> dict[str, int]:
    """Read the lines that a server has died at from recorded settings; none where there are no settings."""
    found = settings_in(path).get(SUSPECTS)
    return {str(key): int(count) for key, count in found.items()} if isinstance(found, dict) else {}


def known_in(path: Path) -> dict[str, Any]:
    """Read of what questions the answers at a path were chosen together; nothing where each chose for itself."""
    left = settings_in(settings_path(path.resolve()))
    return {KNOWN: left[KNOWN]} if KNOWN in left else {}


def unsaid_positions(path: Path | None, asked: set[str]) -> str:
    """Tell the positions of pruned answers that do not say: `compact`, but in a log from before they were an axis.

    Such a log of `original` ones is gone on with by those alone: it is refused, as it was, where others are asked for.

    Args:
        path: of the log that is gone on with.
        asked: positions of the pruned settings.
    """
    left = None if path is None else settings_in(settings_path(path)).get("positions")
    return "original" if left == "original" and asked == {"original"} else "compact"


def record(path: Path, settings: Mapping[str, Any]) -> bool:
    """Write the settings of a run, unless they are there; tell whether they were written."""
    if settings_in(path) == dict(settings):
        return False
    write_json(path, settings)
    return True


def changes(path: Path, first: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Say how a run's settings differ from those that a log was made with.

    Args:
        path: of the recorded settings; when they are gone, the answers still have the most important.
        first: an answer of the log.
        settings: of this run; what `--dtype auto` comes to is compared by `check_dtype`, once that is known.
    """
    left = settings_in(path)
    recorded = _in_answer(first, settings) | (_BEFORE | left if left else {})
    return [
        _CHOSEN if name == KNOWN else f"{name}: {recorded[name]} in the file, {value} asked"
        for name, value in settings.items()
        if name in recorded and recorded[name] != value and (name, value) != ("dtype", AUTO)
    ]


def dtypes_in(paths: Iterable[Path]) -> dict[str, Path]:
    """Find the types of weights that logs were made with, where their settings tell."""
    found = {settings_in(settings_path(path)).get("dtype"): path for path in paths}
    return {str(dtype): path for dtype, path in found.items() if dtype not in (None, AUTO)}


def check_dtype(paths: Iterable[Path], dtype: str) -> None:
    """Compare what `--dtype auto` has come to with what logs were made with, perhaps on another machine.

    Raises:
        UsageError: they differ.
    """
    for found, path in dtypes_in(paths).items():
        if found != dtype:
            what = f"-o: {path.name} was made with other settings (dtype: {found} in the file, {dtype} here)"
            raise UsageError(what, f"use --dtype {found}, or write to another file; --force replaces this one")


def _in_answer(first: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the settings that an answer tells, in the words of `settings` where both say the same."""
    served = (first.get("latency_s") or {}).get("server") is not None
    told: dict[str, Any] = {"engine": "server" if served else "transformers"}
    told["select"] = first.get("select") or "question"
    told |= {name: first[key] for name, key in _IN_LINES.items() if key in first}
    setup = asdict(Setup()) | (first.get("setup") or {})
    told |= {name: setup[name] for name in ("protocol", "tiles")}
    if setup["protocol"] is None:  # which else decides over the rest
        told["crop_budget"] = setup["crop_budget"]
        same = system_name(settings.get("system")) == setup["system"]
        told["system"] = settings.get("system") if same else setup["system"]
        if settings.get("pad") is not None:  # a checkpoint can ask for padding itself
            told["pad"] = setup["pad"]
    return told
