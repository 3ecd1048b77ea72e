"""What a bench found, for a person at a terminal or as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from adafv_cli.console import Streams
from adafv_cli.rendering import units

if TYPE_CHECKING:
    from adafv.bench.records import Bench, Row, Unmeasured
    from adafv.bench.rounds import Speedup, Spread

_SPARE = (  # go first to last
    "note",
    "bound TPOT", "prune", "score", "peak GiB", "rest", "decode", "vision", "prefill", "reached", "by FLOPs", "bound",
)  # fmt: skip
_NOTE = 24  # columns for a note
_STAGES = ("vision", "score", "prune", "prefill", "decode", "rest")
_TITLES = {
    "latency": "one question at a time: milliseconds, and times faster to the first token",
    "throughput": "many questions, preprocessing included: questions per second, and milliseconds of each",
    "pruners": "choosing the tokens of a batch: milliseconds",
    "vision": "vision tower and projector: crops per second",
    "compiled": "decoding a batch, by generate and in compiled steps: milliseconds from token to token",
    "synchronisations": "times that a batch makes the host wait for the device",
}


def show(streams: Streams, bench: Bench) -> None:
    """Write to stdout: tables at a terminal, a line for each row elsewhere.

    Raises:
        ReaderGone: nobody reads it.
        AdaFVError: it cannot be written.
    """
    if not streams.stdout.isatty():
        for row in bench.rows:
            streams.record(asdict(row) | {"partial": bench.partial})
        for one in bench.unmeasured:
            streams.note(unmeasured(one))
        streams.say(sentence(bench))
        return
    streams.picture(*pictures(bench, streams.width))


def pictures(bench: Bench, width: int) -> list[RenderableType]:
    """Machine, a table for each section of each subject, what was not measured, and the sentence."""
    found: list[RenderableType] = [_machine(bench)]
    for subject, section in dict.fromkeys((row.subject, row.section) for row in bench.rows):
        rows = [row for row in bench.rows if (row.subject, row.section) == (subject, section)]
        most = max(row.rounds for row in rows)
        heading = Text.assemble((f"{subject}: ", "bold"), _TITLES[section], (f" ({most} rounds)", "dim"))
        found += [Text(), heading, *_table(rows, width)]
    if bench.unmeasured:
        found.append(Text())
    found += [Text(f"not measured: {unmeasured(one)}", "dim") for one in bench.unmeasured]
    return [*found, Text(), sentence(bench)]


def sentence(bench: Bench) -> Text:
    """Say in one line what pruning saved here."""
    begin = Text("broke off: ", "bold yellow") if bench.partial else Text()
    best = bench.best()
    if all(row.attained is None for row in bench.rows):
        return begin.append("nothing pruned was set beside the unpruned model")
    if best is None:
        return begin.append("no speed-up over the unpruned model was told apart from none")
    row, gain = best
    ratio, attained = row.flops_ratio or 1.0, row.attained or 0.0
    what = "questions answered" if row.section == "throughput" else "first token"
    return begin.append(
        f"{row.subject}, {row.variant}: {what} {units.digits(gain.median)}x as fast as unpruned "
        f"({_range(gain)}); by FLOPs {units.digits(ratio)}x, of which {attained:.0%} was reached"
    )


def _machine(bench: Bench) -> Text:
    machine = bench.machine
    rates = ", ".join(
        f"{name} {units.amount(round(rate), units.DECIMAL, 'FLOP/s')}" for name, rate in machine.matrix_flops.items()
    )
    threads = f", {machine.threads} thread{'s' * (machine.threads != 1)}" if machine.threads else ""
    moved = units.amount(round(machine.bytes_per_s), units.DECIMAL, "B/s")
    return Text.assemble((f"{machine.device}{threads}: ", "bold"), f"{rates}, memory {moved} (measured)")


def unmeasured(one: Unmeasured) -> str:
    """Say of what is missing why."""
    return f"{one.section} of {one.subject}: {one.reason}"


def _table(rows: Sequence[Row], width: int) -> list[RenderableType]:
    """Lay out one section, with as many columns as fit: a number that is cut says something else."""
    columns = {title: cells for title, cells in _columns(rows).items() if any(cells)}
    if _width(columns) > width:
        note = columns.pop("note", None)
        columns = {_folded(title): [_folded(cell) for cell in cells] for title, cells in columns.items()}
        columns |= {"note": note} if note else {}
    for title in _SPARE:
        if _width(columns) > width:
            columns.pop(title, None)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1), header_style="bold")
    for title in columns:
        words = title in ("", "note")
        table.add_column(title, justify="left" if words else "right", no_wrap=title != "note")  # a note may have lines
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    said = [] if "note" in columns else [Text(f"{row.variant}: {note}", "dim") for row in rows for note in row.notes]
    return [table, *said]


def _columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Make every column, by its title."""
    columns = {"": [row.variant for row in rows]}
    columns["TTFT"] = [_milliseconds(row.seconds.get("ttft"), spread=True) for row in rows]
    for stage in _STAGES[: None if rows[0].section == "throughput" else -2]:
        columns[stage] = [_milliseconds(row.seconds.get(stage)) for row in rows]
    columns["both"] = [_milliseconds(row.seconds.get("selection"), spread=True) for row in rows]
    columns["TPOT"] = [_milliseconds(row.seconds.get("tpot")) for row in rows]
    columns["q/s" if rows[0].section == "throughput" else "crops/s"] = [_rate(row.rate) for row in rows]
    columns["count"] = [str(row.settings.get("synchronisations", "")) for row in rows]
    columns["peak GiB"] = ["" if not row.peak_bytes else units.digits(row.peak_bytes / 2**30) for row in rows]
    columns |= {f"x {over}": [_over(row, over) for row in rows] for over in _overs(rows)}
    columns["by FLOPs"] = ["" if row.flops_ratio is None else f"{units.digits(row.flops_ratio)}x" for row in rows]
    columns["reached"] = ["" if row.attained is None else f"{row.attained:.0%}" for row in rows]
    whole = "question" if rows[0].section == "throughput" else "vision"
    for stage, title in (("ttft", "bound TTFT"), ("tpot", "bound TPOT"), (whole, "bound")):
        columns[title] = [_bound(row, stage) for row in rows]
    columns["note"] = ["; ".join(row.notes) for row in rows]
    return columns


def _overs(rows: Sequence[Row]) -> list[str]:
    """List what is compared with, as columns: batches of the row's own size under one title."""
    return list(dict.fromkeys(_named(gain, row) for row in rows for gain in row.speedups))


def _named(gain: Speedup, row: Row) -> str:
    """Name a comparison: `transformers, batch 1`, and `unpruned` for that of the row's own batch size."""
    name, _, rest = gain.over.partition(", ")
    own = rest == f"batch {row.settings.get('batch_size')}"
    return name if own or row.section != "throughput" else gain.over


def _over(row: Row, over: str) -> str:
    return "".join(_gain(gain) for gain in row.speedups if _named(gain, row) == over)


def _gain(gain: Speedup) -> str:
    if not gain.told_apart:
        return f"none ({_range(gain)})"
    return f"{units.digits(gain.median)}x ({_range(gain)})"


def _range(gain: Speedup) -> str:
    return f"{units.digits(gain.low)} to {units.digits(gain.high)}"


def _bound(row: Row, stage: str) -> str:
    least, taken = row.bound_s.get(stage), row.seconds.get(stage)
    if least is None or taken is None:
        return ""
    return f"{units.digits(1000 * least)} ({least / taken.median:.0%})"


def _milliseconds(taken: Spread | None, *, spread: bool = False) -> str:
    if taken is None:
        return ""
    shown = [units.digits(1000 * value) for value in (taken.median, taken.low, taken.high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})" if spread else shown[0]


def _rate(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{units.digits(spread.median)} ({units.digits(spread.low)} to {units.digits(spread.high)})"


def _folded(cell: str) -> str:
    """Break before a spread and behind a comma."""
    return cell.replace(" (", "\n(").replace(", ", ",\n")


def _width(columns: dict[str, list[str]]) -> int:
    """Count the columns of a terminal that a table needs; a note has as many lines as it takes."""
    lines = {
        title: [line for cell in (title, *cells) for line in cell.splitlines()] for title, cells in columns.items()
    }
    widths = {title: max(map(cell_len, found), default=0) for title, found in lines.items()}
    return sum(min(_NOTE, wide) if title == "note" else wide for title, wide in widths.items()) + 2 * len(widths) - 2
