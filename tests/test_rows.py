"""A batch over dicts: rows with the keys of an input line are questions; what is wrong with one is its own error."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import adafv
from adafv import Answer, Question
from tests.conftest import noise

QUESTION = "what color is the sign?"


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def path(image: Image.Image, tmp_path: Path) -> Path:
    image.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def answers(model: adafv.Model, *rows: Any) -> list[Answer]:
    return list(model.batch(rows, keep=5, max_new_tokens=3))


def test_a_row_is_the_question_that_it_describes(llava: adafv.Model, path: Path, image: Image.Image) -> None:
    (wanted,) = answers(llava, Question("a", str(path), QUESTION))
    for row in (
        {"question_id": "a", "image": str(path), "text": QUESTION},
        {"id": "a", "image": path, "question": QUESTION},
        {"custom_id": "a", "image": path.read_bytes(), "prompt": QUESTION},
        {"id": "a", "image": image, "text": QUESTION},
        {"id": "a", "image": {"bytes": path.read_bytes(), "path": None}, "text": QUESTION},
        {"id": "a", "image": {"bytes": None, "path": str(path)}, "text": QUESTION},
    ):
        (answer,) = answers(llava, row)
        assert (answer.question_id, answer.prompt, answer.text) == ("a", QUESTION, wanted.text), row
        assert (answer.tokens, answer.error, answer.metadata) == (wanted.tokens, None, {})


def test_an_images_path_is_its_name_where_its_bytes_are_there(llava: adafv.Model, path: Path) -> None:
    row = {"image": {"bytes": path.read_bytes(), "path": "train/7.png"}, "text": QUESTION}
    (answer,), (file,) = answers(llava, row), answers(llava, Question(0, path, QUESTION))
    assert answer.image is not None and file.image is not None
    assert answer.image.name == "train/7.png" and answer.image.key == file.image.key


def test_other_keys_are_metadata_and_ids_count_from_0(llava: adafv.Model, image: Image.Image) -> None:
    rows = [
        {"image": image, "text": QUESTION, "split": "test", "metadata": {"source": "b"}},
        Question("own", image, QUESTION),
        {"image": image, "question_id": None, "id": 4, "text": QUESTION, "question": "another?", "metadata": 3},
        {"image": image, "text": QUESTION, "metadata": None},
    ]
    first, own, third, fourth = answers(llava, *rows)
    assert (first.question_id, first.metadata) == (0, {"source": "b", "split": "test"})
    assert (own.question_id, third.question_id, fourth.question_id) == ("own", 4, 3)
    assert third.metadata == {"metadata": 3, "question": "another?"} and fourth.metadata == {}


WRONG: list[tuple[Any, str, str]] = [
    ({"text": QUESTION}, "ImageError", "there is no image"),
    ({"text": QUESTION, "image": {"bytes": None, "path": None}}, "ImageError", "there is no image"),
    ({"text": QUESTION, "image": {}}, "ImageError", "there is no image"),
    ({"text": QUESTION, "image": "nowhere.png"}, "ImageError", "nowhere.png"),
    ({"text": QUESTION, "image": b"nothing"}, "ImageError", "image bytes"),
    ({"text": QUESTION, "image": [[0, 1]]}, "ImageError", "list is no image"),
    ({"image": noise(9, 9)}, "InputError", "there is no question"),
    ({"image": noise(9, 9), "text": "  "}, "InputError", "text: '  ' is no question"),
    ({"image": noise(9, 9), "question": ["a"] * 999}, "InputError", "is no question"),
    ({"image": noise(9, 9), "text": QUESTION, "id": [1]}, "InputError", "id: [1] is no id"),
    ({"image": noise(9, 9), "text": QUESTION, "id": float("nan")}, "InputError", "id: nan is no id"),
    ({}, "InputError", "there is no question"),
    ("street.png", "InputError", "item 0 is of the type str, no question"),
    (("street.png", QUESTION), "InputError", "item 0 is of the type tuple, no question"),
    (None, "InputError", "item 0 is of the type NoneType, no question"),
]


@pytest.mark.parametrize(("row", "kind", "what"), WRONG, ids=[what for _, _, what in WRONG])
def test_what_is_wrong_with_a_row_is_its_own_error(
    row: Any, kind: str, what: str, llava: adafv.Model, image: Image.Image
) -> None:
    wrong, right = answers(llava, row, {"image": image, "text": QUESTION})
    assert wrong.error is not None and wrong.error.type == kind and wrong.error.fix
    assert what in wrong.error.message and len(wrong.error.message) < 400
    assert (wrong.question_id, wrong.text) == (0, None)
    assert json.loads(json.dumps(wrong.to_json()))["error"]["type"] == kind
    assert right.error is None and right.question_id == 1


class Table:
    """What `datasets.Dataset` is to its reader: rows by number and one after the other, decoded when they are read."""

    def __init__(self, images: list[Image.Image]) -> None:
        self._files, self.read = [png(image) for image in images], 0

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, file in enumerate(self._files):
            self.read += 1
            yield {"image": Image.open(io.BytesIO(file)), "question": QUESTION, "answer": "red", "id": f"q{number}"}


def test_a_table_is_read_as_its_answers_are_wanted(llava: adafv.Model) -> None:
    table = Table([noise(56, 56, seed=number) for number in range(90)])
    stream = llava.batch(table, keep=5, max_new_tokens=1, batch_size=2)
    first = next(stream)
    assert (first.question_id, first.metadata) == ("q0", {"answer": "red"}) and first.error is None
    assert table.read < len(table)
    rest = list(stream)
    assert [answer.question_id for answer in rest] == [f"q{number}" for number in range(1, 90)]
    assert not [answer for answer in rest if answer.error]
