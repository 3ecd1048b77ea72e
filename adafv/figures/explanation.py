"""The picture of an explanation: image, saliency, similarity, and what was kept by which signal."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from adafv.figures import captions, rasters
from adafv.figures.formats import METADATA
from adafv.figures.layout import BAR_WIDTH, Layout, Spot, arrange, width_for
from adafv.figures.texts import families, shortened, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from adafv.explanation import Explanation

DPI = 200
_STYLE = {"svg.hashsalt": "adafv", "axes.linewidth": 0.5, "text.parse_math": False}
_INK, _PALE = "#222222", "#666666"
_SIZES = captions.Sizes()
_LEADING = 1.3
_POINTS = 72  # per inch
_BAR, _SQUARE = 0.08, 0.085  # inches: height of a colour bar, side of a square in the legend


def render(explanation: Explanation, kind: str = "png", dpi: int = DPI) -> bytes:
    """Draw the picture as a file's content; the same explanation gives the same bytes.

    Args:
        explanation: what `Model.explain` returned.
        kind: `png`, `svg` or `pdf`.
        dpi: pixels per inch, in svg and pdf of those parts that are made of pixels.
    """
    from matplotlib import style

    file = BytesIO()
    with style.context(["default", _STYLE]):
        optimised: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
        _Drawing(explanation, dpi).figure.savefig(file, format=kind, dpi=dpi, metadata=METADATA[kind], **optimised)
    return file.getvalue()


class _Drawing:
    """One figure while it is drawn."""

    def __init__(self, explanation: Explanation, dpi: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.explanation, self.dpi = explanation.padded(), dpi
        explanation = self.explanation
        aspect, layers = explanation.image.width / explanation.image.height, len(explanation.layers)
        header = captions.header(explanation, width_for(aspect, layers) * _POINTS, _SIZES)
        height = sum(size * _LEADING for _, size, _ in header) / _POINTS
        self.layout: Layout = arrange(aspect, layers, height)
        self.figure: Figure = Figure(figsize=(self.layout.width, self.layout.height), dpi=dpi)
        FigureCanvasAgg(self.figure)
        self.page = self._page()
        top = self.layout.header.top
        for line, size, pale in header:
            self._text(self.layout.header.left, top, line, size, _PALE if pale else _INK)
            top += size * _LEADING / _POINTS
        whole = [self._layer(layer) for layer in range(layers)]
        self._captions(unseen=not all(whole))

    def _page(self) -> Axes:
        """Axes over the whole figure, in inches."""
        page = self.figure.add_axes((0, 0, 1, 1))
        page.set_axis_off()
        page.set(xlim=(0, self.layout.width), ylim=(self.layout.height, 0))
        return page

    def _layer(self, layer: int) -> bool:
        """Draw the panels of one layer; whether its tokens show all of the image."""
        explanation, tokens = self.explanation, self.explanation.tokens
        spots = [spot.snapped(self.dpi) for spot in self.layout.panels[layer]]
        shape = (round(spots[0].height * self.dpi), round(spots[0].width * self.dpi))
        owners = rasters.places(explanation, explanation.layers[layer], shape)
        seen = rasters.crops(explanation, owners)
        pictures = [seen if layer else rasters.whole(explanation.image, shape)]
        for name in rasters.RAMPS:
            values = [getattr(token, name) for token in tokens]
            pictures.append(rasters.heat(seen, owners, values, max(values), name))
        colours = captions.colours(explanation)
        areas = captions.areas(explanation)
        pictures.append(rasters.fates(seen, owners, colours, areas, rasters.border(owners, self.dpi)))
        titles = captions.titles(explanation, layer)
        for panel, (spot, picture, title) in enumerate(zip(spots, pictures, titles, strict=True)):
            axes = self._picture(spot, picture)
            room = max(spot.width, self.layout.captions[panel].width if spot.width < BAR_WIDTH else 0) * _POINTS
            text = shortened(title, room, _SIZES.title)
            self._text(spot.left, spot.top - 0.045, text, _SIZES.title, _INK, va="bottom")
            if layer:
                self._borders(axes, numbered=panel == 0)
        return bool((owners >= 0).all())

    def _picture(self, spot: Spot, pixels: rasters.Pixels) -> Axes:
        width, height = self.layout.width, self.layout.height
        place = (spot.left / width, 1 - spot.bottom / height, spot.width / width, spot.height / height)
        axes, image = self.figure.add_axes(place), self.explanation.image
        axes.imshow(pixels, interpolation="none", aspect="auto", extent=(0, image.width, image.height, 0))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(_PALE)
        return axes

    def _borders(self, axes: Axes, numbered: bool) -> None:
        """Draw the borders of the tiles, with their numbers."""
        from matplotlib.patches import Rectangle

        for number, crop in enumerate(self.explanation.crops[1:], start=1):
            left, top, right, bottom = crop.frame.seen
            if left >= right or top >= bottom:
                continue
            for colour, width in (("black", 1.6), ("white", 0.7)):
                axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=width))
            if numbered:
                label = str(number) if crop.encoded else f"{number} skipped"
                axes.annotate(
                    label, (left, top), xytext=(3, -3), textcoords="offset points", va="top", size=_SIZES.small,
                    color="white", bbox={"boxstyle": "round,pad=0.2", "fc": "black", "ec": "none", "alpha": 0.7},
                )  # fmt: skip

    def _captions(self, unseen: bool) -> None:
        _, saliency, similarity, kept = self.layout.captions
        self._bar("saliency", saliency)
        self._bar("similarity", similarity)
        _, note, words, _ = self.layout.notes
        self._text(note.left, note.top, captions.saliency_note(self.explanation), _SIZES.small, _PALE)
        best = captions.best_words(self.explanation, words.width * _POINTS, _SIZES.small)
        self._text(words.left, words.top, best, _SIZES.small, _INK)
        self._legend(kept, unseen)

    def _bar(self, name: str, spot: Spot) -> None:
        """Draw the colours of a signal, with values at its ends and in the middle."""
        top = max(getattr(token, name) for token in self.explanation.tokens)
        width = min(BAR_WIDTH, spot.width)
        place = Spot(spot.left, spot.top + 0.08, width, _BAR).snapped(self.dpi)
        self._picture(place, rasters.bar(name, round(place.width * self.dpi)))
        for share, side in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
            value = captions.number(share**2 * top)  # a square-root scale
            self._text(place.left + share * width, place.bottom + 0.03, value, _SIZES.small, _PALE, ha=side)

    def _legend(self, spot: Spot, unseen: bool) -> None:
        """Colours with their counts, as many in a line as fit."""
        from matplotlib.patches import Rectangle

        left, top = spot.left, spot.top + 0.08
        for colour, text in captions.legend(self.explanation, unseen):
            width = _SQUARE + 0.05 + width_of(text, _SIZES.small) / _POINTS
            if left > spot.left and left + width > spot.left + spot.width:
                left, top = spot.left, top + 0.14
            hatch = "//////" if colour == rasters.UNSEEN else None
            fill = [part / 255 for part in colour]
            self.page.add_patch(Rectangle((left, top), _SQUARE, _SQUARE, fc=fill, ec=_PALE, lw=0.4, hatch=hatch))
            middle = top + _SQUARE / 2
            self._text(left + _SQUARE + 0.05, middle, text, _SIZES.small, _INK, va="center_baseline")
            left += width + 0.12

    def _text(self, left: float, top: float, text: str, size: float, colour: str, **more: Any) -> None:
        settings = {"va": "top", "ha": "left"} | more
        self.page.text(left, top, text, size=size, color=colour, family=families(text), **settings)
