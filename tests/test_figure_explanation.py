"""The picture of an explanation: what is bright and what is dim, where, at any size and in any language."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import adafv
from adafv.explanation import Explanation, VisualToken
from adafv.figures import rasters
from adafv.figures.captions import Sizes, best_words, header, legend
from adafv.figures.explanation import render
from adafv.figures.layout import PANELS, arrange, width_for
from adafv.figures.texts import readable, shortened, width_of, wrapped
from tests import tiny
from tests.conftest import noise

QUESTION = "what color is the sign?"
SIZES = [(32, 32), (640, 480), (800, 100), (100, 800), (1000, 41), (41, 1000), (4000, 3000), (3, 50)]


@pytest.fixture
def model(request: pytest.FixtureRequest) -> adafv.Model:
    found: adafv.Model = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a library would say on stderr."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        yield
    assert not caplog.get_records("call")


BOTH = pytest.mark.parametrize("model", ["llava", "tiled"], indirect=True)


def explained(model: adafv.Model, image: Image.Image, question: str = QUESTION, **settings: Any) -> Explanation:
    return model.explain(image, question, max_new_tokens=2, **settings)


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content)).convert("RGB")


@BOTH
@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_explanation_gives_the_same_bytes(model: adafv.Model, kind: str, start: bytes) -> None:
    told = explained(model, noise(120, 90), keep=4)
    content = render(told, kind, 60)
    assert content.startswith(start)
    assert content == render(told, kind, 60)


@BOTH
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_and_shape(model: adafv.Model, size: tuple[int, int]) -> None:
    picture = opened(render(explained(model, noise(*size), keep=4), dpi=50))
    assert 300 < picture.width < 600 and 100 < picture.height < 600


@pytest.mark.parametrize("settings", [dict(keep="all"), dict(pruner="none"), dict(keep=1), dict(pruner="uniform")])
def test_any_selection(tiled: adafv.Model, settings: dict[str, Any]) -> None:
    assert render(explained(tiled, noise(90, 60), **settings), dpi=50)


@pytest.mark.parametrize(
    "question",
    ["这是什么颜色", "ما لون العلامة؟", "$x^2$ costs $5 \\frac", "long " * 400, "x" * 3000, "a\tb\nc\x07", "😀👍🏽"],
)
def test_any_language_and_length(llava: adafv.Model, question: str) -> None:
    told = explained(llava, noise(60, 60), keep=4)
    told = replace(told, answer=replace(told.answer, prompt=question, text=question))
    assert opened(render(told, dpi=50)).height < 600


@BOTH
def test_kept_tokens_are_bright_where_they_are(model: adafv.Model) -> None:
    image = Image.new("RGB", (240, 160), (230, 230, 230))
    told = explained(model, image, keep=5)
    shape = (320, 480)
    for numbers in told.layers:
        owners = rasters.places(told, numbers, shape)
        colours = [rasters.KEPT if token.kept else None for token in told.tokens]
        light = rasters.fates(rasters.crops(told, owners), owners, colours, [None] * len(colours), 1).mean(axis=-1)
        for number in numbers:
            token = told.tokens[number]
            assert token.box is not None
            left, top, right, bottom = (round(2 * edge) for edge in token.box)
            inside = light[top + 2 : bottom - 2, left + 2 : right - 2]
            assert inside.size and ((inside > 200) if token.kept else (inside < 100)).all()


def test_the_rendered_panel_is_bright_where_a_token_is_kept(llava: adafv.Model) -> None:
    image = Image.new("RGB", (200, 200), (230, 230, 230))
    told = explained(llava, image, keep=1, pruner="uniform")
    tokens = [replace(token, kept=number == 6) for number, token in enumerate(told.tokens)]  # second row, third column
    told = replace(told, tokens=tuple(tokens))
    dpi = 100
    pixels = np.asarray(opened(render(told, dpi=dpi)).convert("L")).astype(int)
    lines = header(told, width_for(1.0, 1) * 72, Sizes())
    panel = arrange(1.0, 1, sum(size * 1.3 for _, size, _ in lines) / 72).panels[0][3].snapped(dpi)
    top, left = round(panel.top * dpi), round(panel.left * dpi)
    height, width = round(panel.height * dpi), round(panel.width * dpi)
    for number in range(tiny.PATCHES):
        row, column = divmod(number, tiny.SIDE)
        middle = pixels[top + (2 * row + 1) * height // 8, left + (2 * column + 1) * width // 8]
        assert (middle > 200) == (number == 6), number


def test_colours_say_which_signal_chose(llava: adafv.Model) -> None:
    image = Image.new("RGB", (200, 200), (230, 230, 230))
    told = explained(llava, image, keep=4)
    wanted = {0: (True, False), 5: (False, True), 10: (True, True)}
    tokens = [
        replace(token, kept=number in wanted, by_saliency=number in (0, 10), by_similarity=number in (5, 10))
        for number, token in enumerate(told.tokens)
    ]
    told = replace(told, tokens=tuple(tokens))
    assert [text for _, text in legend(told, unseen=True)] == [
        "saliency 1", "similarity 1", "both 1", "dropped 13", "not seen",
    ]  # fmt: skip
    picture = np.asarray(opened(render(told, dpi=100))).reshape(-1, 3)
    for colour in (rasters.SALIENCY, rasters.SIMILARITY, rasters.BOTH):
        assert (picture == colour).all(axis=1).sum() > 50


@BOTH
@pytest.mark.parametrize("size", [(240, 160), (300, 100), (90, 200), (57, 91)], ids=str)
def test_crops_are_put_together_to_the_image(model: adafv.Model, size: tuple[int, int]) -> None:
    """A wrong place, order or scale of any crop would make a puzzle of it."""
    image = noise(*size)
    told = explained(model, image, keep=3)
    shape = (size[1] * 2, size[0] * 2)
    for numbers in told.layers:
        owners = rasters.places(told, numbers, shape)
        difference = np.abs(rasters.crops(told, owners).astype(int) - rasters.whole(image, shape))[owners >= 0]
        assert difference.mean() < 6
        if len(told.crops) > 1 and len(numbers) > tiny.PATCHES:
            swapped = replace(told, crops=(told.crops[0], *told.crops[:0:-1]))
            wrong = np.abs(rasters.crops(swapped, owners).astype(int) - rasters.whole(image, shape))[owners >= 0]
            assert wrong.mean() > 3 * difference.mean()


def test_heat_is_that_of_the_tokens_own_value(llava: adafv.Model) -> None:
    told = explained(llava, Image.new("RGB", (200, 200), (128, 128, 128)), keep=4)
    owners = rasters.places(told, told.layers[0], (200, 200))
    drawn = rasters.heat(rasters.crops(told, owners), owners, list(range(16)), 15, "similarity")
    cells = drawn.reshape(4, 50, 4, 50, 3)
    assert (cells == cells[:, :1, :, :1]).all()  # one colour in each cell
    light = cells[:, 0, :, 0].mean(axis=-1).flatten()
    assert (np.diff(light) < 0).all()


def test_what_no_token_shows_is_hatched(llava: adafv.Model) -> None:
    told = explained(llava, noise(200, 100), keep=4)
    owners = rasters.places(told, told.layers[0], (100, 200))
    assert (owners[:, :50] == -1).all() and (owners[:, 150:] == -1).all() and (owners[:, 50:150] >= 0).all()
    assert (rasters.crops(told, owners)[:, :50] == rasters.hatching((100, 200))[:, :50]).all()


def test_no_gap_between_tokens_whatever_the_resolution(tiled: adafv.Model) -> None:
    told = explained(tiled, noise(333, 222), keep=4)
    for height in range(90, 130):
        owners = rasters.places(told, told.layers[0], (height, round(height * 1.5)))
        assert (owners >= 0).all()


@pytest.mark.parametrize("aspect", [0.02, 0.125, 0.5, 1, 1.5, 2.3, 8, 50])
@pytest.mark.parametrize("layers", [1, 2])
def test_parts_do_not_overlap(aspect: float, layers: int) -> None:
    layout = arrange(aspect, layers, 0.5)
    spots = [spot for row in layout.panels for spot in row]
    assert len(spots) == layers * PANELS
    spots += [layout.header, *layout.captions[1:]]
    for number, one in enumerate(spots):
        assert one.left >= 0 and one.top >= 0
        assert one.left + one.width <= layout.width + 1e-9 and one.bottom <= layout.height + 1e-9
        for other in spots[:number]:
            apart = one.left >= other.left + other.width - 1e-9 or other.left >= one.left + one.width - 1e-9
            assert apart or one.top >= other.bottom - 1e-9 or other.top >= one.bottom - 1e-9


def test_lines_fit() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 6
    lines = wrapped(text, 200, 9, 99)
    assert " ".join(lines) == text.strip()
    assert all(width_of(line, 9) <= 200 for line in lines)
    cut = wrapped(text, 200, 9, 2)
    assert len(cut) == 2 and cut[1].endswith("…") and width_of(cut[1], 9) <= 200
    assert wrapped("", 200, 9, 2) == []
    assert shortened("short", 200, 9) == "short"
    assert readable("a\u200bb\x00\n c") == "ab c"


def test_the_best_words_are_named_once(llava: adafv.Model) -> None:
    told = explained(llava, noise(60, 60), "sign sign what", keep=4)
    words = tuple(
        replace(word, similarity=value) for word, value in zip(told.words, [0.9, 0.5, 0.4, 0.06, 0.3], strict=False)
    )
    told = replace(told, words=words)
    assert [word.text for word in words[1:4]] == ["sign", "sign", "what"]
    assert best_words(told, 500, 7) == "sign 0.50 · what 0.060"
    assert best_words(told, 40, 7) == "sign 0.50"


def test_tokens_on_nothing_but_padding_are_left_out(llava: adafv.Model) -> None:
    told = explained(llava, noise(60, 60), keep=4)
    tokens: tuple[VisualToken, ...] = (replace(told.tokens[0], box=None), *told.tokens[1:])
    told = replace(told, tokens=tokens)
    assert 0 not in rasters.places(told, told.layers[0], (60, 60))
    assert render(told, dpi=50)


def test_it_needs_no_display_and_leaves_no_traces(llava: adafv.Model, tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render(explained(llava, noise(60, 60), keep=4), dpi=50)
    assert dict(matplotlib.rcParams) == before
