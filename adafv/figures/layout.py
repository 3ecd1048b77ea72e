"""Where the panels of an explanation go: side by side, or one below the other where the image is wide. In inches."""

from __future__ import annotations

from dataclasses import dataclass

PANELS = 4  # image, saliency, similarity, kept
BAR_WIDTH = 1.95
_MARGIN, _GAP, _TITLE, _SPACE = 0.12, 0.16, 0.2, 0.07
_FOOTER_BESIDE, _FOOTER_BELOW = 0.5, 0.34
_WIDTH, _NARROWEST, _TALLEST = 1.95, 1.8, 3.4  # of a panel
_WIDE = 2.2  # from this aspect ratio on, panels go one below the other
_WIDTH_OF_ROWS = {1: 6.4, 2: 4.2}  # of a panel then, by the number of layers


@dataclass(frozen=True)
class Spot:
    """A place in the figure; `top` counts downwards from the figure's upper edge."""

    left: float
    top: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    def snapped(self, dpi: int) -> Spot:
        """Snap to whole pixels, and at least one."""
        left, top = round(self.left * dpi), round(self.top * dpi)
        width, height = (max(1, round(length * dpi)) for length in (self.width, self.height))
        return Spot(left / dpi, top / dpi, width / dpi, height / dpi)


@dataclass(frozen=True)
class Layout:
    """The figure's size and its parts.

    Args:
        width, height: of the figure.
        header: for question, answer and settings.
        panels: by layer, then by panel; a title fits above each.
        captions: by panel; the first has none. A colour bar of `BAR_WIDTH` fits into each.
        notes: by panel, the part of its caption that is left beside or below a colour bar.
    """

    width: float
    height: float
    header: Spot
    panels: tuple[tuple[Spot, ...], ...]
    captions: tuple[Spot, ...]
    notes: tuple[Spot, ...]


def width_for(aspect: float, layers: int) -> float:
    """Width of the header, which its own height depends on."""
    return _columns(aspect, layers) - 2 * _MARGIN


def arrange(aspect: float, layers: int, header: float) -> Layout:
    """Lay out panels for images of this width over height, under a header of that height."""
    width, height = _panel(aspect, layers)
    start = _MARGIN + header + _SPACE
    cell = max(width, _NARROWEST)
    if aspect > _WIDE:
        below = [_SPACE] + [_FOOTER_BELOW] * (PANELS - 1)
        tops = [start + _TITLE]
        for footer in below[:-1]:
            tops.append(tops[-1] + height + footer + _TITLE)
        panels = tuple(
            tuple(Spot(_MARGIN + layer * (cell + _GAP), top, width, height) for top in tops) for layer in range(layers)
        )
        captions = tuple(
            Spot(_MARGIN, top + height, _columns(aspect, layers) - 2 * _MARGIN, _FOOTER_BELOW) for top in tops
        )
        end = captions[-1].bottom
    else:
        step = _TITLE + height + _SPACE
        lefts = [_MARGIN + panel * (cell + _GAP) for panel in range(PANELS)]
        panels = tuple(
            tuple(Spot(left, start + layer * step + _TITLE, width, height) for left in lefts) for layer in range(layers)
        )
        end = start + layers * step - _SPACE
        captions = tuple(Spot(left, end, cell, _FOOTER_BESIDE) for left in lefts)
        end += _FOOTER_BESIDE
    whole, right, down = _columns(aspect, layers), BAR_WIDTH + 0.3, 0.34
    notes = tuple(
        Spot(spot.left + right, spot.top + 0.06, spot.width - right, spot.height)
        if aspect > _WIDE
        else Spot(spot.left, spot.top + down, spot.width, spot.height - down)
        for spot in captions
    )
    return Layout(whole, end + _MARGIN, Spot(_MARGIN, _MARGIN, whole - 2 * _MARGIN, header), panels, captions, notes)


def _panel(aspect: float, layers: int) -> tuple[float, float]:
    if aspect > _WIDE:
        width = _WIDTH_OF_ROWS[layers]
        return width, width / aspect
    width = min(_WIDTH, _TALLEST * aspect)
    return width, width / aspect


def _columns(aspect: float, layers: int) -> float:
    """Width of the figure."""
    number = layers if aspect > _WIDE else PANELS
    cell = max(_panel(aspect, layers)[0], _NARROWEST)
    return 2 * _MARGIN + number * cell + (number - 1) * _GAP
