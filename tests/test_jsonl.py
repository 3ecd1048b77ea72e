"""Lines of JSONL: what is a question, what is not and why, what is carried along."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adafv.records import Answer
from adafv_cli.work import jsonl
from adafv_cli.work.jsonl import parse, raw_lines
from adafv_cli.work.lines import Line, encoded, id_key

FOLDER = Path("pictures")


def line(content: object, number: int = 3) -> Line:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse(number, raw, FOLDER)


def reason(content: object) -> str:
    failure = line(content).failure
    assert failure is not None
    assert failure.fix
    return failure.message


@pytest.mark.parametrize("text", ["text", "question", "prompt"])
@pytest.mark.parametrize("name", ["question_id", "id", "custom_id"])
def test_aliases(name: str, text: str) -> None:
    found = line({name: "x", text: "what?", "image": "a.png"})
    assert (found.question_id, found.text, found.source) == ("x", "what?", "pictures/a.png")
    assert (found.failure, found.metadata) == (None, {})


@pytest.mark.parametrize("value", [0, -1, 7, 2**70, 1.5, "a", "", "ü", True, False])
def test_ids_are_any_scalar(value: object) -> None:
    found = line({"question_id": value, "text": "q", "image": "a"}).question_id
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("value", [[], {}, [1]])
def test_ids_are_scalars_only(value: object) -> None:
    assert "is no id" in reason({"id": value, "text": "q", "image": "a"})
    assert line({"id": value, "text": "q", "image": "a"}).question_id == 3


def test_the_id_defaults_to_the_line_number() -> None:
    assert line({"text": "q", "image": "a"}, number=41).question_id == 41


def test_an_id_that_is_null_is_none() -> None:
    found = line({"question_id": None, "text": "q", "image": "a"}, number=41)
    assert (found.question_id, found.has_id, found.metadata) == (41, True, {})
    assert line({"question_id": None, "id": 7, "text": "q", "image": "a"}).question_id == 7


def test_the_first_alias_counts_and_the_others_are_metadata() -> None:
    found = line({"id": 1, "question_id": 2, "prompt": "p", "text": "t", "image": "a", "category": "x", "n": [1, None]})
    assert (found.question_id, found.text) == (2, "t")
    assert found.metadata == {"id": 1, "prompt": "p", "category": "x", "n": [1, None]}


def test_metadata_is_carried_as_it_is() -> None:
    assert line({"text": "q", "image": "a", "metadata": {"a": 1}, "b": 2}).metadata == {"a": 1, "b": 2}
    assert line({"text": "q", "image": "a", "metadata": 5}).metadata == {"metadata": 5}


def test_the_text_is_not_touched() -> None:
    text = "what is it?\nAnswer the question using a single word or phrase. "
    assert line({"text": text, "image": "a"}).text == text


def test_images_are_relative_absolute_or_data() -> None:
    def source(image: str) -> str | bytes:
        found = line({"text": "q", "image": image})
        assert found.failure is None
        return found.source

    assert source("sub/a.png") == "pictures/sub/a.png"
    assert source("/tmp/a.png") == "/tmp/a.png"
    content = bytes(range(256))
    code = base64.b64encode(content).decode()
    assert source(f"data:image/png;base64,{code}") == content
    assert source(f"DATA:image/png;BASE64,{code[:20]}\n{code[20:]}") == content
    assert source("data:image/svg+xml,%3Csvg%2F%3E") == b"<svg/>"


@pytest.mark.parametrize(
    "content,part",
    [
        (b"{", "not JSON"),
        (b"what color?", "not JSON"),
        (b'{"text": NaN}', "NaN"),
        (b'{"text": "q", "image": "a", "x": -Infinity}', "Infinity"),
        (b'{"text": "q", "image": "a", "x": 1e999}', "too large for JSON"),
        (b'{"id": 1e999, "text": "q", "image": "a"}', "is no id"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x": ' + b"1" * 5000 + b"}", "not JSON"),
        (b"\xff\xfe{", "not UTF-8"),
        ([{"text": "q"}], "is no JSON object"),
        ("text", "is no JSON object"),
        (5, "is no JSON object"),
        ({"image": "a"}, "there is no question"),
        ({"messages": [{"role": "user"}]}, 'messages: [{"role": "user"}]: a question is one turn about one image'),
        ({"image": "a", "text": "  "}, "is no question"),
        ({"image": "a", "text": ["q"]}, "is no question"),
        ({"image": "a", "text": "\ud800"}, "surrogate"),
        ({"text": "q"}, "there is no image"),
        ({"text": "q", "image": ""}, "is no path"),
        ({"text": "q", "image": 5}, "is no path"),
        ({"text": "q", "image": ["a.png", "b.png"]}, 'image: ["a.png", "b.png"]: a question is about one image'),
        ({"text": "q", "images": ["a.png"]}, ": a question is about one image, not about several"),
        ({"text": "q", "video": "a.mp4"}, ": a question is about one image, not about several or a video"),
        ({"text": "q", "image": "https://x.org/a.png"}, "https://x.org/a.png is a web address"),
        ({"text": "q", "image": "HTTP://x.org/a.png"}, "web address"),
        ({"text": "q", "image": "data:image/png;base64,?"}, "not base64"),
        ({"text": "q", "image": "data:image/png"}, "no data URI"),
    ],
)
def test_what_is_no_question(content: object, part: str) -> None:
    assert part in reason(content)


def test_a_bad_line_keeps_what_could_be_read() -> None:
    found = line({"id": "x", "text": "q", "category": "c"})
    assert (found.question_id, found.text, found.metadata) == ("x", "q", {"category": "c"})


def test_an_array_is_told_how_to_become_lines() -> None:
    failure = line([{"text": "q"}]).failure
    assert failure is not None and "jq -c '.[]'" in failure.fix


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_of_a_file(end: bytes) -> None:
    content = b"\xef\xbb\xbf" + end.join([b'{"a": 1}', b"", b"  ", b'{"b": 2}', b'{"c": 3}'])
    found = [(number, json.loads(raw or b"")) for number, raw in raw_lines(io.BytesIO(content))]
    assert found == [(1, {"a": 1}), (4, {"b": 2}), (5, {"c": 3})]


def test_a_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 10)
    monkeypatch.setattr(jsonl, "_CHUNK", 7)
    for end in (b"", b"\n", b"\n12345\n"):
        found = list(raw_lines(io.BytesIO(b"0123456789\n" + b"x" * 50 + end)))
        assert found[:2] == [(1, b"0123456789\n"), (2, None)]
        assert found[2:] == ([(3, b"12345\n")] if len(end) > 1 else [])
    failure = parse(2, None, FOLDER).failure
    assert failure is not None and "longer than" in failure.message


def test_long_lines_are_taken() -> None:
    content = json.dumps({"text": "q", "image": "data:;base64," + "A" * (40 * 2**20)}).encode()
    ((number, raw),) = raw_lines(io.BytesIO(content))
    assert len(parse(number, raw, FOLDER).source) == 30 * 2**20


def test_ids_that_are_one_and_ids_that_are_not() -> None:
    assert id_key(1) == id_key(1.0)
    assert id_key(0) == id_key(-0.0)
    different = [1, "1", True, None, "null", "", 1.5, "true", False, 0, "a", "\ud800"]
    assert len({id_key(one) for one in different}) == len(different)
    assert id_key(1, "a") != id_key(1, "b")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values, st.booleans() | st.integers() | st.text(st.characters(codec=None)))
def test_what_goes_in_comes_out(extra: Any, question_id: Any) -> None:
    found = line({"id": question_id, "text": "q", "image": "a", "extra": extra})
    out = encoded(Answer(found.question_id, found.text, None, "demo", found.metadata))
    assert "\n" not in out
    again = json.loads(out.encode())
    assert (again["question_id"], again["metadata"]) == (question_id, {"extra": extra})


@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_an_error(content: bytes) -> None:
    for number, raw in raw_lines(io.BytesIO(content)):
        found = parse(number, raw, FOLDER)
        assert found.failure is not None or found.text
