"""What a sweep found, for a person at a terminal or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from adafv.errors import cut
from adafv_cli.console import Streams
from adafv_cli.rendering import units
from adafv_cli.rendering.sweep_words import cell, difference, footnote, name_of, sentence, value, without_looking
from adafv_cli.terminal import one_line

if TYPE_CHECKING:
    from adafv.quality.points import Floors, Point
    from adafv.quality.qualities import Accuracy
    from adafv.quality.recommendation import Recommendation

WIDE = 120  # columns, from which on intervals are written out
_NAME, _GROUP_CELL = 14, 13  # columns for a group's name, and for a quality with what is between two of them, at least

_SPARE = (
    "KV MiB",
    "q/s",
    "TTFT ms",
    "F1",
    "to unpruned",
    "tokens",
    "agrees %",
    "from floor %",
    "FLOPs",
)  # go first to last
_NAMES = {"exact": "accuracy", "vqa": "VQA acc.", "yes-no": "accuracy", "textvqa": "VQA acc.", "gqa": "accuracy"}
_NAMES |= {"mme": "accuracy", "choice": "accuracy", "mmbench": "circular", "anls": "ANLS", "relaxed": "relaxed"}


def show(
    streams: Streams,
    points: Sequence[Point],
    recommendation: Recommendation,
    floors: Floors | None = None,
    *,
    partial: bool,
    as_json: bool,
) -> None:
    """Write to stdout: a table at a terminal, a line for each point elsewhere, one object with `as_json`.

    Raises:
        ReaderGone: nobody reads it.
        AdaFVError: it cannot be written.
    """
    if as_json:
        streams.record(made(points, recommendation, floors) | {"partial": partial})
    elif streams.stdout.isatty():
        ascii_only = not _shows("\u00b1", streams)
        found = pictures(points, recommendation, streams.width, floors, partial=partial, ascii_only=ascii_only)
        streams.picture(*found)
    else:
        for point in points:
            streams.record(point.to_json() | {"partial": partial})
        streams.say(sentence(recommendation))
        if recommendation.settings:
            streams.say(footnote(recommendation))
        if floors is not None:
            streams.say(without_looking(floors))


def _shows(text: str, streams: Streams) -> bool:
    try:
        text.encode(streams.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def made(points: Sequence[Point], recommendation: Recommendation, floors: Floors | None = None) -> dict[str, Any]:
    """Points and recommendation as JSON."""
    chosen = recommendation.point
    from adafv.quality.qualities import plain

    found = {
        "points": [point.to_json() for point in points],
        "recommendation": None if chosen is None else chosen.setting,
        "tolerance": recommendation.tolerance,
        "compared": {
            "settings": recommendation.settings,
            "series": recommendation.series,
            "images": recommendation.images,
            "low": None if recommendation.low is None else round(recommendation.low, 6),
            "least_difference": round(recommendation.least_told, 6),
            "images_needed": recommendation.images_needed,
        },
    }
    return found if floors is None else found | {"floors": plain(asdict(floors))}


def pictures(
    points: Sequence[Point],
    recommendation: Recommendation,
    width: int,
    floors: Floors | None = None,
    *,
    partial: bool,
    ascii_only: bool = False,
) -> list[RenderableType]:
    """Heading, table, tables of groups, recommendation."""
    within = " +-" if ascii_only else " \u00b1"
    found: list[RenderableType] = [_heading(points, partial), Text(), _table(points, width, within)]
    if points[0].groups:
        most = max(1, (width - _NAME) // _group_width(points, within) - 1)  # budgets beside the unpruned
        for pruner in dict.fromkeys(point.name for point in points[1:]):
            budgets = [point for point in points if point.name == pruner]
            for first in range(0, len(budgets), most):
                found += [Text(), _groups(pruner, [points[0], *budgets[first : first + most]], within)]
    found += [Text(), sentence(recommendation)]
    found += [footnote(recommendation)] if recommendation.settings else []
    return found if floors is None else [*found, without_looking(floors)]


def _heading(points: Sequence[Point], partial: bool) -> Text:
    accuracy = _accuracy(points)
    questions = max(point.questions for point in points)
    text = Text(f"{questions} question{'s' * (questions != 1)}")
    if accuracy is None:
        text.append("; none has an answer to compare with: agreement with the unpruned model is the quality")
    elif accuracy.questions < questions:
        text.append(f", {accuracy.questions} of them with an answer to compare with")
    if partial:
        text = Text("partial: ", "bold yellow").append(text)
    return text


def _accuracy(points: Sequence[Point]) -> Accuracy | None:
    """Take the first accuracy there is: the unpruned model may have answered nothing."""
    return next((point.quality.accuracy for point in points if point.quality.accuracy is not None), None)


def _table(points: Sequence[Point], width: int, within: str) -> Table:
    """Lay out all settings, with as many columns as fit: a number that is cut says something else."""
    columns = _columns(points, width >= WIDE, within)
    quality = "" if _accuracy(points) else "agrees %"  # which stays
    for title in _SPARE:
        if title != quality and _width(columns) > width:
            columns.pop(title, None)
    table = _empty()
    for title in columns:
        table.add_column(title, justify="left" if title in ("", "pruner") else "right", no_wrap=True)
    for point, *cells in zip(points, *columns.values(), strict=True):
        table.add_row(*cells, style="green" if point.recommended else "")
    return table


def _columns(points: Sequence[Point], wide: bool, within: str) -> dict[str, list[str]]:
    """Make every column, by its title."""
    accuracy, qualities = _accuracy(points), [point.quality for point in points]
    columns = {
        "": ["*" if point.recommended else "" for point in points],
        "pruner": [name_of(point) for point in points],
        "keep": ["" if point.is_floor else point.keep for point in points],
    }
    if accuracy:
        columns[f"{_NAMES[accuracy.metric]} %"] = [cell(quality.accuracy, wide, within) for quality in qualities]
    if any(quality.yes_no is not None for quality in qualities):
        columns["F1"] = [value(quality.yes_no.f1 if quality.yes_no else None) for quality in qualities]
    for name in points[0].scores or {}:
        columns[name] = [_score(name, point) for point in points]
    agrees = [value(one.agreement) if accuracy else cell(one.agreement, wide, within) for one in qualities]
    columns["agrees %"] = ["" if point.is_unpruned else cell for point, cell in zip(points, agrees, strict=True)]
    if wide:
        gains = [None if point.is_unpruned else point.quality.difference for point in points]
        columns["to unpruned"] = [difference(gain, wide, within) for gain in gains]
    if any(point.headroom is not None for point in points):
        ways = [point.headroom for point in points]
        columns["from floor %"] = ["" if way is None else f"{100 * way:.0f}" for way in ways]
    against = _against(points)
    if against:
        columns[against] = [difference(quality.against, wide, within) for quality in qualities]
    titles = ("tokens", "FLOPs", "TTFT ms", "q/s", "KV MiB")
    return columns | dict(
        zip(titles, map(list, zip(*(_costs(point, points[0]) for point in points), strict=True)), strict=True)
    )


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(max(1, *map(cell_len, (title, *cells))) + 2 for title, cells in columns.items()) - 2


def _groups(pruner: str, points: Sequence[Point], within: str) -> Table:
    """Quality of one pruner's budgets, group by group."""
    table = _empty()
    table.add_column(f"{name_of(points[-1])}, %")
    for point in points:
        table.add_column(point.keep, justify="right", no_wrap=True)
    for name in points[0].groups or {}:
        qualities = [(point.groups or {}).get(name) for point in points]
        cells = [cell(quality.interval if quality else None, False, within) for quality in qualities]
        table.add_row(Text(one_line(cut(name, 40))), *cells)
    means = [point.macro for point in points]
    if any(means) and len(points[0].groups or {}) > 1:
        table.add_row(Text("mean of these", "italic"), *(cell(mean, False, within) for mean in means))
    return table


def _group_width(points: Sequence[Point], within: str) -> int:
    qualities = [quality for point in points for quality in (point.groups or {}).values()]
    return max(_GROUP_CELL, *(len(cell(quality.interval, False, within)) + 2 for quality in qualities))


def _empty() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1), header_style="bold")


def _costs(point: Point, first: Point) -> list[str]:
    """Write what a setting took; FLOPs as a share of the sweep's own unpruned, whose prompts may share a prefill."""
    if not (point.tokens and point.flops and point.latency_s and point.memory_bytes):
        return [""] * 5
    return [
        units.digits(point.tokens["kept"]) if point.tokens["kept"] % 1 else f"{point.tokens['kept']:.0f}",
        units.percent(point.flops["total"], first.flops["total"]) if first.is_unpruned and first.flops else "",
        units.digits(1000 * point.latency_s["ttft"]) if "ttft" in point.latency_s else "",
        "" if point.questions_per_s is None else units.digits(point.questions_per_s),
        units.digits(point.memory_bytes["kv_cache"] / 2**20),
    ]


def _against(points: Sequence[Point]) -> str:
    """Title the differences to another setting: `to adafv`, or `to adafv@25%` where it is one for all."""
    found = [(point.keep, one) for point in points if (one := point.quality.against) is not None]
    if not found:
        return ""
    first = found[0][1]
    budgets_match = all(keep == one.keep for keep, one in found)
    return f"to {first.pruner}" if budgets_match else f"to {first.pruner}@{first.keep}"


def _score(name: str, point: Point) -> str:
    """Write a benchmark's own score; accuracy+ is a share, others are points."""
    found = (point.scores or {}).get(name)
    return "" if found is None else value(found) if name == "accuracy+" else f"{found.value:.1f}"
