"""Paired differences to one setting, beneath the curves of a sweep: what is told apart does not touch the line at 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from adafv.quality.points import Point

_INK, _PALE, _GRID, _SMALL, _TEXT = "#222222", "#666666", "#e4e4e4", 8.0, 9.0
_OUTER = 0.9  # quantile of the differences that decides the scale: the worst pruners lose too much to show the others


def draw_differences(
    axes: Axes,
    lines: Mapping[str, Sequence[Point]],
    looks: Mapping[str, tuple[str, str]],
    places: Mapping[tuple[str, str], tuple[float, float]],
) -> None:
    """Draw each point's difference with its interval, below its place on the curve.

    Args:
        axes: that share the scale of tokens with the curve's.
        lines: points of each pruner.
        looks: color and mark of each pruner.
        places: where the curve has each pruner at each budget.
    """
    axes.axhline(0.0, color=_INK, linewidth=1.0)
    low, high = _scale([point for line in lines.values() for point in line])
    for name, line in lines.items():
        colour, mark = looks[name]
        for point in line:
            gain = point.quality.against
            if gain is None:
                continue
            at, value = places[name, point.keep][0], 100 * gain.value
            if value < low:  # an arrow at the edge says that it lies beyond
                axes.plot([at], [low], marker="v", markersize=4, color=colour, alpha=0.6, clip_on=False)
                continue
            ends = [[value - 100 * gain.low], [100 * gain.high - value]]
            axes.errorbar(
                [at], [value], ends, color=colour, marker=mark, markersize=4.5, markeredgecolor="white",
                markeredgewidth=0.5, elinewidth=1.0, capsize=0,
            )  # fmt: skip
    axes.set_ylim(low, high)
    axes.set_ylabel(f"points to {_reference(lines)}", fontsize=_TEXT, color=_INK)
    axes.set_xlabel("visual tokens kept, mean per image", fontsize=_TEXT, color=_INK, labelpad=4)
    axes.tick_params(labelsize=_SMALL, length=3, color=_PALE, labelcolor=_INK)
    axes.grid(True, axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, color in (("top", "none"), ("right", "none"), ("left", _PALE), ("bottom", _PALE)):
        axes.spines[side].set_color(color)


def _scale(points: Sequence[Point]) -> tuple[float, float]:
    """Choose the ends of the scale, in points: symmetric as far as there are gains, and not for the very worst."""
    gains = [gain for point in points if (gain := point.quality.against) is not None]
    high = max(0.5, *(100 * gain.high for gain in gains))
    losses = sorted(-100 * gain.low for gain in gains)
    return -max(high, min(losses[round(_OUTER * (len(losses) - 1))], 3 * high)), 1.08 * high


def _reference(lines: Mapping[str, Sequence[Point]]) -> str:
    found = [(point.keep, gain) for line in lines.values() for point in line if (gain := point.quality.against)]
    same = all(keep == gain.keep for keep, gain in found)
    return found[0][1].pruner if same else f"{found[0][1].pruner} at {found[0][1].keep}"
