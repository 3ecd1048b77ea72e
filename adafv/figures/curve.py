"""Quality against cost: a line for each pruner with its intervals, the unpruned model, and what is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from adafv.figures.differences import draw_differences
from adafv.figures.formats import METADATA
from adafv.figures.placing import spread
from adafv.figures.texts import families, heading_of, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from adafv.quality.points import Point
    from adafv.quality.recommendation import Recommendation

DPI = 200

_INK, _PALE, _GRID = "#222222", "#666666", "#e4e4e4"
_TITLE, _TEXT, _SMALL = 11.0, 9.0, 8.0  # sizes of letters in points
_SIZE = (8.0, 5.4)  # inches
_BOLD = 1.2  # widths of bold letters, at most, to those of others
_NAMES, _RIGHT = 0.24, 0.07  # of the scale, what is left free at its ends
_MORE_HEIGHT = 2.1  # inches, for differences beneath
_DODGE = 0.4  # of the way between two budgets, over which the pruners' whiskers are set apart
_LARGEST_STEP = 2.0
_LOOKS = {  # told apart by those who see few colours, and by their marks in print
    "adafv": ("#d55e00", "o"),
    "saliency": ("#0072b2", "s"),
    "similarity": ("#009e73", "^"),
    "divprune": ("#aa4499", "D"),
    "cdpruner": ("#b07d00", "v"),
    "scope": ("#3aa0d8", "P"),
    "mmtok": ("#332288", "X"),
    "visionzip": ("#882255", "*"),
    "pool": ("#117733", "p"),
    "uniform": ("#555555", "<"),
    "random": ("#8a8a8a", ">"),
}
_MORE = [("#7a7a1f", "h"), ("#cc6677", "d"), ("#44aa99", "8")]
_QUALITIES = {"exact": "accuracy", "vqa": "VQA accuracy", "yes-no": "accuracy (yes or no)", "anls": "ANLS"}
_QUALITIES |= {"textvqa": "VQA accuracy", "gqa": "accuracy", "mme": "accuracy (yes or no)", "choice": "accuracy"}
_QUALITIES |= {"mmbench": "circular accuracy", "relaxed": "relaxed accuracy"}
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "adafv", "pdf.fonttype": 42, "text.parse_math": False}


def render(
    points: Sequence[Point],
    recommendation: Recommendation,
    kind: str = "png",
    *,
    model: str = "",
    partial: bool = False,
    dpi: int = DPI,
) -> bytes:
    """Draw the figure as a file's content; the same points give the same bytes.

    Args:
        points: of one sweep, the unpruned first.
        recommendation: what was made of them.
        kind: one of `adafv.figures.formats.FORMATS`.
        model: the checkpoint's name, for the title.
        partial: whether the sweep broke off.
        dpi: pixels per inch of a PNG.
    """
    from matplotlib import style

    file = BytesIO()
    with style.context(["default", _STYLE]):
        figure = _Curve(points, recommendation, model, partial).figure
        figure.savefig(file, format=kind, dpi=dpi, metadata=METADATA[kind])
    return file.getvalue()


class _Curve:
    """One figure while it is drawn."""

    def __init__(self, points: Sequence[Point], recommendation: Recommendation, model: str, partial: bool) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        points = [point for point in points if not point.is_floor]  # whose 0 tokens no logarithm has
        self.whole = next((point for point in points if point.is_unpruned and point.tokens), None)
        self.lines: dict[str, list[Point]] = {}
        for point in points:
            if point.tokens and point.quality.interval and point.tokens["kept"] < point.tokens["visual"]:
                self.lines.setdefault(point.line, []).append(point)
        for line in self.lines.values():
            line.sort(key=_kept)
        self.recommendation = recommendation
        compared = any(point.quality.against for line in self.lines.values() for point in line)
        self.height = _SIZE[1] + (_MORE_HEIGHT if compared else 0.0)
        self.figure: Figure = Figure(figsize=(_SIZE[0], self.height))
        FigureCanvasAgg(self.figure)
        part = _SIZE[1] / self.height
        self.axes: Axes = self.figure.add_axes((0.085, 1 - 0.885 * part, 0.885, 0.735 * part))
        self._scales(points)
        self._unpruned()
        self._draw()
        self._mark()
        self._titles(points, model, partial)
        if compared:
            below = self.figure.add_axes((0.085, 0.62 / self.height, 0.885, 1.55 / self.height), sharex=self.axes)
            draw_differences(below, self.lines, self.looks, self.places)

    def _scales(self, points: Sequence[Point]) -> None:
        """Scale tokens logarithmically; leave room on the left for the names, on the right for the unpruned model."""
        axes = self.axes
        kept = sorted({_kept(point) for line in self.lines.values() for point in line} or {1.0})
        visual = _kept(self.whole) if self.whole else kept[-1]
        whole = max(visual, kept[-1])
        axes.set_xscale("log")
        decades = whole / kept[0] if whole > kept[0] else 2.0
        axes.set_xlim(kept[0] / decades**_NAMES, whole * decades**_RIGHT)
        steps = [later / earlier for earlier, later in zip(kept, [*kept[1:], whole], strict=True) if later > earlier]
        self.step = min([*steps, _LARGEST_STEP])
        found = [point.quality.interval for point in points if point.quality.interval]
        low = 100 * min((one.low for one in found), default=0.0)  # of nothing, where the unpruned model failed
        high = 100 * max((one.high for one in found), default=1.0)
        room = max(high - low, 2.0)
        axes.set_ylim(low - 0.09 * room, min(high + 0.08 * room, 100 + 0.05 * room))
        ticks = sorted({*kept, whole})
        axes.set_xticks(ticks, [_number(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.tick_params(labelsize=_SMALL, length=3, color=_PALE, labelcolor=_INK)
        axes.grid(True, axis="y", color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(_PALE)
        self._shares(ticks)

    def _shares(self, ticks: Sequence[float]) -> None:
        """Write on top the FLOPs that go with the tokens, as a share of the sweep's own unpruned."""
        whole = self.whole.flops["total"] if self.whole and self.whole.flops else None
        every = [point for line in self.lines.values() for point in line] + ([self.whole] if self.whole else [])
        top = self.axes.secondary_xaxis("top")
        labels = []
        for tick in ticks:
            here = [point.flops["total"] for point in every if _kept(point) == tick and point.flops]
            shares = [100 * total / whole for total in here] if whole else []
            labels.append(f"{sum(shares) / len(shares):.0f}" if shares else "")
        top.set_xticks(ticks, labels)
        top.set_xticks([], minor=True)
        top.tick_params(labelsize=_SMALL, length=0, labelcolor=_PALE, pad=2)
        top.spines["top"].set_visible(False)
        top.set_xlabel("FLOPs, % of the unpruned", fontsize=_SMALL, color=_PALE, labelpad=3)

    def _unpruned(self) -> None:
        quality = self.whole.quality.interval if self.whole else None
        if self.whole is None or quality is None:
            return
        value = 100 * quality.value
        begin = 0.88 * _NAMES / (_NAMES + 1 + _RIGHT)  # behind the names
        self.axes.axhspan(100 * quality.low, 100 * quality.high, begin, color="#000000", alpha=0.06, linewidth=0)
        self.axes.axhline(value, begin, color=_INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2.5)
        self.axes.plot([_kept(self.whole)], [value], marker="d", markersize=7, color=_INK, linestyle="", zorder=4)

    def _draw(self) -> None:
        """Draw the lines, side by side by a little, and their names at their left ends."""
        others = iter(_MORE * (1 + len(self.lines)))
        looks = self.looks = {name: _LOOKS.get(name) or next(others) for name in self.lines}
        names: list[tuple[float, float, str, str]] = []
        self.places: dict[tuple[str, str], tuple[float, float]] = {}
        for number, (name, line) in enumerate(self.lines.items()):
            colour, mark = looks[name]
            aside = self.step ** (_DODGE * ((number + 0.5) / len(self.lines) - 0.5))
            at = [_kept(point) * aside for point in line]
            found = [point.quality.interval for point in line if point.quality.interval]
            values = [100 * one.value for one in found]
            below = [100 * max(0.0, one.value - one.low) for one in found]  # draws need not lie around the value
            above = [100 * max(0.0, one.high - one.value) for one in found]
            front = 3.6 if name == "adafv" else 3.0
            self.axes.errorbar(
                at, values, [below, above], color=colour, marker=mark, markersize=5.5, markeredgecolor="white",
                markeredgewidth=0.6, linewidth=1.7, elinewidth=0.8, capsize=0, zorder=front,
            )  # fmt: skip
            for point, *place in zip(line, at, values, strict=True):
                self.places[name, point.keep] = (place[0], place[1])
            names.append((at[0], values[0], name, colour))
        self._names(names)

    def _names(self, names: Sequence[tuple[float, float, str, str]]) -> None:
        """Write each name beside the beginning of its line, or as near to it as there is room."""
        low, high = self.axes.get_ylim()
        line = (high - low) * _TEXT * 1.25 / 72 / (_SIZE[1] * 0.735)
        heights = spread([height for _, height, _, _ in names], line, low + line / 2, high - line / 2)
        left = self.axes.get_xlim()[0]
        right = min((at for at, *_ in names), default=1.0)
        for (at, height, name, colour), shown in zip(names, heights, strict=True):
            edge = left * (right / left) ** 0.74
            self.axes.text(edge, shown, name, color=colour, fontsize=_TEXT, ha="right", va="center", zorder=5)
            bend = left * (right / left) ** 0.86
            self.axes.plot(
                [edge * 1.01, bend, at], [shown, height, height], color=colour, linewidth=0.6, alpha=0.7, zorder=2
            )

    def _mark(self) -> None:
        """Draw a ring around what is recommended."""
        chosen = self.recommendation.point
        place = self.places.get((chosen.line, chosen.keep)) if chosen else None
        if place is not None:
            style: dict[str, Any] = {"facecolors": "none", "edgecolors": _INK, "linewidths": 1.5}
            self.axes.scatter([place[0]], [place[1]], s=150, zorder=6, **style)

    def _titles(self, points: Sequence[Point], model: str, partial: bool) -> None:
        accuracy = next((point.quality.accuracy for point in points if point.quality.accuracy), None)
        what = "agreement with the unpruned model" if accuracy is None else _QUALITIES[accuracy.metric]
        self.axes.set_ylabel(f"{what}, %", fontsize=_TEXT, color=_INK)
        self.axes.set_xlabel("visual tokens kept, mean per image", fontsize=_TEXT, color=_INK, labelpad=4)
        questions, advice = max(point.questions for point in points), self._advice()
        said = f"{questions:,} question{'s' * (questions != 1)}{' (partial)' if partial else ''}"
        room = (0.95 * 72 * _SIZE[0] - width_of(advice, _TEXT)) / _BOLD
        title, heading = heading_of(model, said, room, _TITLE), 1 - 0.045 * _SIZE[1] / self.height
        style: dict[str, Any] = {"fontsize": _TITLE, "fontweight": "bold", "family": families(title)}
        self.figure.text(0.02, heading, title, color=_INK, va="center", **style)
        self.figure.text(0.98, heading, advice, fontsize=_TEXT, color=_INK, ha="right", va="center")
        if self.whole is not None and self.whole.quality.interval is not None:
            self._name_unpruned(100 * self.whole.quality.interval.value)

    def _name_unpruned(self, value: float) -> None:
        text = f"unpruned {value:.1f}"
        right = self.axes.get_xlim()[1]
        self.axes.annotate(
            text, (right, value), (0, 4), textcoords="offset points", fontsize=_SMALL, color=_INK, ha="right",
            va="bottom", zorder=5,
        )  # fmt: skip

    def _advice(self) -> str:
        chosen, tolerance = self.recommendation.point, f"{self.recommendation.tolerance:g}"
        unit = "point" if self.recommendation.tolerance == 1 else "points"
        if chosen is None:
            return f"no budget is surely within {tolerance} {unit} of the unpruned"
        return f"recommended (ring): {chosen.name} at {chosen.keep}, within {tolerance} {unit}"


def _kept(point: Point) -> float:
    return point.tokens["kept"] if point.tokens else 0.0


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 or value == int(value) else f"{value:.1f}"
