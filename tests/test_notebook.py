"""Answers and explanations show themselves in a notebook, and nothing that was asked or said is taken for HTML."""

from __future__ import annotations

import io
from base64 import b64decode
from html.parser import HTMLParser

import pytest
from PIL import Image

import adafv
from adafv import Answer
from adafv.notebook import answer_html, explanation_html
from adafv.records import Failure
from adafv.spent import Flops, MemoryBytes, TokenCounts

BAD = "<script>alert('x')</script> & \"quoted\" <img src=x onerror=y>\nnext line"
TAGS = {"div", "span", "b", "i", "br", "table", "tr", "td", "img"}


class Page(HTMLParser):
    """What a browser makes of it: text, tags in order, attributes of pictures; every tag is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "br":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_answer_shows_text_tokens_and_cost(llava: adafv.Model, image: Image.Image) -> None:
    answer = llava.ask(image, "what color is the sign?", keep=5, max_new_tokens=3)
    page = Page(answer._repr_html_())
    assert "what color is the sign?" in page.text and (answer.text or "") in page.text
    assert "5 of 16, adafv" in page.text and "FLOPs" in page.text and "key/value cache" in page.text


def test_numbers_are_short_and_beside_the_unpruned_models() -> None:
    answer = Answer(
        1, "what?", "red", "m", pruner="adafv",
        tokens=TokenCounts(576, 128, 61, 74, 7, 40, 2, 1),
        flops=Flops(0, 0, 0, 0, 0, 3_210_400_000_000, 9_999_600_000_000),
        memory_bytes=MemoryBytes(999, 0, None),
    )  # fmt: skip
    text = Page(answer_html(answer)).text
    assert "128 of 576, adafv" in text
    assert "3.21 T of 10 T (32%)" in text
    assert "999 B of 0 B" in text and "B (" not in text and "latency" not in text


def test_what_was_said_is_no_html() -> None:
    answer = Answer(1, BAD, BAD, "m", pruner="<b>", tokens=TokenCounts(1, 1, None, None, None, 1, 1, 1))
    failed = Answer(1, BAD, None, "m", error=Failure("ImageError", BAD, BAD))
    for html, times in (
        (answer_html(answer), 2),
        (answer_html(failed), 3),
        (explanation_html(answer, b"png"), 2),
    ):
        page = Page(html)
        assert set(page.tags) <= TAGS and page.text.count(BAD) == times
        assert page.tags.count("img") == ("base64" in html)
        assert all(set(image) == {"style", "alt", "src"} and BAD in (image["alt"] or "") for image in page.images)


@pytest.mark.parametrize("pruner", ["adafv", "uniform"])
def test_an_explanation_shows_its_picture(pruner: str, llava: adafv.Model, image: Image.Image) -> None:
    explanation = llava.explain(image, "what <b>color</b>?", keep=5, pruner=pruner, max_new_tokens=3)
    page = Page(explanation._repr_html_())
    ((shown,),) = (page.images,)
    kind, _, content = (shown["src"] or "").partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(b64decode(content, validate=True))) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 300
    assert "what <b>color</b>?" in page.text and "5 of 16" in page.text
