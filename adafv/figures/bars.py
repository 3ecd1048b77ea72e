"""Cost by variant: the stages up to the first token as bars, questions per second beside them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from adafv.figures.formats import METADATA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from adafv.bench.records import Row

DPI = 200

_INK, _PALE, _GRID = "#222222", "#666666", "#e4e4e4"
_STAGES = {
    "vision": "#3aa0d8",
    "score": "#009e73",
    "prune": "#b07d00",
    "prefill": "#d55e00",
    "ttft": "#9a9a9a",  # of those that tell no stages
}
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "adafv", "pdf.fonttype": 42, "text.parse_math": False}
_TEXT, _SMALL = 9.0, 8.0  # sizes of letters in points
_BAR, _EDGE = 0.28, 0.85  # inches of height for each bar, and around each panel
_RATE = "#8899cc"


def render(rows: Sequence[Row], kind: str = "png", *, machine: str = "", dpi: int = DPI) -> bytes:
    """Draw the figure as a file's content; the same rows give the same bytes.

    Args:
        rows: of one bench; those of `latency` and `throughput` are drawn.
        kind: one of `adafv.figures.formats.FORMATS`.
        machine: name of the device, for the title.
        dpi: pixels per inch of a PNG.
    """
    from matplotlib import style

    file = BytesIO()
    with style.context(["default", _STYLE]):
        _drawn(rows, machine).savefig(file, format=kind, dpi=dpi, metadata=METADATA[kind])
    return file.getvalue()


def _drawn(rows: Sequence[Row], machine: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    subjects = list(dict.fromkeys(row.subject for row in rows)) or [""]
    panels = [[_of(rows, subject, section) for section in ("latency", "throughput")] for subject in subjects]
    heights = [max(2, *map(len, pair)) * _BAR + _EDGE for pair in panels]
    figure: Figure = Figure(figsize=(10.0, sum(heights) + 0.45), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(subjects), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for subject, pair, axes in zip(subjects, panels, grid, strict=True):
        _latency(axes[0], subject, pair[0])
        _throughput(axes[1], subject, pair[1])
    _legend(figure, [row for row in rows if row.section == "latency"])
    figure.suptitle(f"adafv bench{f' on {machine}' if machine else ''}", fontsize=11, fontweight="bold", color=_INK)
    return figure


def _of(rows: Sequence[Row], subject: str, section: str) -> list[Row]:
    return [row for row in rows if (row.subject, row.section) == (subject, section)]


def _latency(axes: Axes, subject: str, rows: Sequence[Row]) -> None:
    """Stack the stages up to the first token; a tick marks what the machine needs at least."""
    for place, row in enumerate(rows):
        whole, left = row.seconds["ttft"], 0.0
        told = [name for name in _stages(row) if name != "ttft"] or ["ttft"]
        scale = 1000 * whole.median / sum(row.seconds[name].median for name in told)  # medians do not add up
        for name in told:
            width = scale * row.seconds[name].median
            axes.barh(place, width, left=left, color=_STAGES[name], height=0.7)
            left += width
        axes.plot([1000 * whole.low, 1000 * whole.high], [place, place], color=_INK, linewidth=1.0)
        if "ttft" in row.bound_s:
            at = 1000 * row.bound_s["ttft"]
            axes.plot([at, at], [place - 0.38, place + 0.38], color=_INK, linewidth=1.6, linestyle=":")
    _finish(axes, f"{subject}: time to the first token, ms", [row.variant for row in rows])


def _stages(row: Row) -> list[str]:
    return [name for name in _STAGES if name in row.seconds]


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    """Explain the colours once, below everything."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    present = {name for row in rows for name in _stages(row)}
    handles: list[Any] = [
        Patch(color=colour, label="all stages (of transformers)" if name == "ttft" else name)
        for name, colour in _STAGES.items()
        if name in present
    ]
    handles.append(Line2D([], [], color=_INK, linewidth=1.0, label="least to most of the rounds"))
    handles.append(Line2D([], [], color=_INK, linewidth=1.6, linestyle=":", label="what this machine needs at least"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=_SMALL, frameon=False)


def _throughput(axes: Axes, subject: str, rows: Sequence[Row]) -> None:
    """Draw questions per second, with the least and the most of the rounds."""
    measured = [row for row in rows if row.rate is not None]
    for place, row in enumerate(measured):
        if row.rate is not None:
            axes.barh(place, row.rate.median, color=_RATE, height=0.7)
            axes.plot([row.rate.low, row.rate.high], [place, place], color=_INK, linewidth=1.0)
    _finish(axes, f"{subject}: questions per second", [row.variant for row in measured])


def _finish(axes: Axes, title: str, names: Sequence[str]) -> None:
    axes.set_title(title, fontsize=_TEXT, color=_INK, loc="left")
    axes.set_yticks(range(len(names)), names, fontsize=_SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=_SMALL, colors=_PALE)
    axes.grid(True, axis="x", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
