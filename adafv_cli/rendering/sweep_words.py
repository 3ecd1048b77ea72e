"""What a sweep found, in words and numbers: values with their intervals, and what is recommended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from adafv.quality.intervals import Interval
    from adafv.quality.points import Floors, Point
    from adafv.quality.qualities import Accuracy, Against
    from adafv.quality.recommendation import Recommendation


def name_of(point: Point) -> str:
    """Name a setting's pruner as people are shown it."""
    return "unpruned" if point.is_unpruned else "no image" if point.is_floor else point.name


def sentence(recommendation: Recommendation) -> Text:
    """Say what is recommended and why, or what came nearest."""
    tolerance = f"{recommendation.tolerance:g}"
    text = Text().append("recommended: ", "bold")
    chosen = recommendation.point
    if chosen is not None:
        value = _written(chosen.quality.interval)
        text.append(f"{chosen.name} at {chosen.keep}", "bold green")
        return text.append(f": {value}, {_gap(recommendation, chosen)}, within {tolerance}")
    unit = "point" if recommendation.tolerance == 1 else "points"
    text.append("none", "bold").append(f"; no budget is surely within {tolerance} {unit} of the unpruned")
    near = recommendation.nearest
    return text if near is None else text.append(f"; nearest: {near.name} at {near.keep}, {_gap(recommendation, near)}")


def footnote(recommendation: Recommendation) -> Text:
    """Say what the recommendation rests on, and what so many images can tell at all."""
    settings, images = _counted(recommendation.settings, "setting"), _counted(recommendation.images, "image")
    text = f"{settings} in {recommendation.series:,} series compared on {images}"
    if recommendation.low is not None:
        text += f": with that allowed for, at worst {_signed(recommendation.low)} points"
    least = recommendation.least_told
    return Text(f"{text}; differences below {_percent(least)} points cannot be told", "dim")


def without_looking(floors: Floors) -> Text:
    """Say what is right without looking at the image."""
    known = (("no image", floors.no_image), ("the commonest answer of each group", floors.commonest))
    said = [f"{name} {_percent(share)}" for name, share in known if share is not None]
    return Text(f"without looking: {', '.join(said) or 'nothing is known'}", "dim")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _gap(recommendation: Recommendation, point: Point) -> str:
    """Write a gap: `-2.0 points (-2.9 to -1.2) of the unpruned 98.8`."""
    gain, whole = point.quality.difference, recommendation.unpruned
    if gain is None:
        return ""
    reference = whole.quality.value if whole is not None else None
    known = "" if reference is None else f" {_percent(reference)}"
    return f"{_signed(gain.value)} points ({_signed(gain.low)} to {_signed(gain.high)}) of the unpruned{known}"


def cell(found: Accuracy | Interval | None, wide: bool, within: str) -> str:
    """Write `96.8 (95.9 to 97.6)`.

    Where there is less room `96.8 ±0.9`, or both sides where that would be beyond 0 or 100.
    """
    if found is None:
        return ""
    if wide:
        return _written(found)
    half = (found.high - found.low) / 2
    if found.value - half >= 0 and found.value + half <= 1:
        return f"{_percent(found.value)}{within}{_percent(half)}"
    sides = [
        f"{sign}{_percent(side)}" for sign, side in (("+", found.high - found.value), ("-", found.value - found.low))
    ]
    return f"{_percent(found.value)} " + "".join(side for side in sides if side[1:] != "0.0")


def value(found: Interval | None) -> str:
    """Write a value alone."""
    return "" if found is None else _percent(found.value)


def difference(gain: Interval | Against | None, wide: bool, within: str) -> str:
    """Write `+0.6 (-0.3 to +1.5)`, or `+0.6 ±0.9` where there is less room."""
    if gain is None:
        return ""
    if not wide:
        return f"{_signed(gain.value)}{within}{_percent((gain.high - gain.low) / 2)}"
    return f"{_signed(gain.value)} ({_signed(gain.low)} to {_signed(gain.high)})"


def _written(found: Accuracy | Interval | None) -> str:
    if found is None:
        return ""
    return f"{_percent(found.value)} ({_percent(found.low)} to {_percent(found.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
