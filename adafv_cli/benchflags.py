"""What `adafv bench` is asked for: what it measures, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adafv import pruners
from adafv.bench.geometries import GEOMETRIES, geometry
from adafv.bench.records import SECTIONS
from adafv.errors import InputError, shown
from adafv.settings import RunSettings
from adafv_cli.exits import UsageError
from adafv_cli.files import check_figure, check_report

if TYPE_CHECKING:
    from adafv.bench.suite import Plan

SUITES: dict[str, dict[str, Any]] = {
    "gpu": {
        "geometry": "llava-1.5-7b,llava-next-7b,llava-next-34b",
        "batch_size": "1,8,32,128",
        "pruner": "all",
    },
}

_flag = partial(typer.Option, rich_help_panel="Bench")


@dataclass(frozen=True)
class BenchFlags:
    """What is measured, and for how long."""

    geometry: Annotated[
        str | None,
        _flag(
            metavar="NAME,...", help=f"Random weights: {', '.join(GEOMETRIES)}.", show_default="the largest that fits"
        ),
    ] = None
    suite: Annotated[str | None, _flag(help=f"All that is to be known of a kind of machine: {', '.join(SUITES)}.")] = (
        None
    )
    keep: Annotated[str | None, _flag("-k", "--keep", help="Visual tokens kept: 192,64.", show_default="published")] = (
        None
    )
    pruner: Annotated[str | None, _flag(help="Pruners: adafv,divprune, or all; the first in all sections.")] = None
    batch_size: Annotated[str | None, _flag(metavar="N,...", help="Questions answered together.")] = None
    questions_per_image: Annotated[
        int, _flag(min=1, help="Questions that share an image; every --select is timed.")
    ] = 1
    sections: Annotated[
        str | None, _flag(metavar="NAME,...", help=f"Only these of {', '.join(SECTIONS)}.", show_default="all")
    ] = None
    max_new_tokens: Annotated[int, _flag(min=1, help="Length of each answer.")] = 16
    rounds: Annotated[int, _flag(min=1, help="Rounds at most.")] = 5
    minutes: Annotated[float, _flag(help="For everything; what does not fit is named.")] = 5.0
    json: Annotated[Path | None, _flag("--json", metavar="FILE", help="Write everything as one JSON object.")] = None
    plot: Annotated[Path | None, _flag(metavar="FILE", help="Draw it: a .png, .svg or .pdf.")] = None
    force: Annotated[bool, _flag("--force", help="Replace files of others.")] = False

    def plan(self, *, compile: bool) -> Plan:
        """Make the library's plan; `compile` as it has it.

        Raises:
            UsageError: a value that cannot be used.
        """
        from adafv.bench.suite import Plan

        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise UsageError(f"--minutes: {self.minutes:g} leaves no time", "give more than 0")
        names = self._chosen("pruner", "adafv")
        every = tuple(name for name in pruners.names() if name != "none")
        chosen = every if names.strip() == "all" else tuple(_items("pruner", names))
        for name in chosen:
            try:
                RunSettings(pruner=name)
            except InputError as error:
                raise UsageError(f"--{error.what}", error.fix) from error
        first = ("adafv",) if "adafv" in chosen else ()
        return Plan(
            keeps=() if self.keep is None else tuple(sorted(_numbers("keep", self.keep), reverse=True)),
            pruners=tuple(dict.fromkeys((*first, *chosen))),
            batch_sizes=tuple(_numbers("batch-size", self._chosen("batch_size", "1,8"))),
            per_picture=self.questions_per_image,
            sections=self._sections(),
            new_tokens=self.max_new_tokens,
            compile=compile,
            rounds=self.rounds,
            minutes=self.minutes,
        )

    def _sections(self) -> tuple[str, ...]:
        """List the sections to measure, all of them unless some are asked for; raises `UsageError`."""
        found = SECTIONS if self.sections is None else tuple(_items("sections", self.sections))
        for name in found:
            if name not in SECTIONS:
                raise UsageError(f"--sections: {shown(name)} is unknown", f"choose from {', '.join(SECTIONS)}")
        return found

    def names(self) -> list[str]:
        """List the geometries that were chosen, none where that is left to the machine.

        Raises:
            UsageError: an unknown suite or geometry.
        """
        if self.suite is not None and self.suite not in SUITES:
            raise UsageError(f"--suite: {shown(self.suite)} is unknown", f"choose from {', '.join(SUITES)}")
        names = self._chosen("geometry", "")
        found = _items("geometry", names) if names else []
        for name in found:
            try:
                geometry(name)
            except InputError as error:
                raise UsageError(f"--{error.what}", error.fix) from error
        return found

    def _chosen(self, name: str, default: str) -> str:
        suite = SUITES.get(self.suite or "", {})
        own = getattr(self, name)
        return str(suite.get(name, default) if own is None else own)

    def check_files(self) -> None:
        """See that all files can be written.

        Raises:
            UsageError: one cannot.
        """
        if self.json is not None:
            check_report(self.json, flag="--json", force=self.force)
        if self.plot is not None:
            check_figure("--plot", self.plot, force=self.force)


def _items(flag: str, text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"--{flag}: {shown(text)} names none", "separate several with commas: a,b,c")
    return found


def _numbers(flag: str, text: str) -> list[int]:
    found = []
    for part in _items(flag, text):
        if not part.isascii() or not part.isdecimal() or not 1 <= int(part[:18]) <= 10**6:
            raise UsageError(f"--{flag}: {shown(part)} is no number from 1 on", "give numbers: 192,128,64")
        found.append(int(part))
    return found
