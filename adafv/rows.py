"""Makes questions of rows of a table: dicts with the keys of an input line, as `datasets` and JSON files have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from adafv.budget import Budget
from adafv.errors import AdaFVError, BudgetError, ImageError, InputError, shown
from adafv.records import Answer, Question

IDS = ("question_id", "id", "custom_id")  # of several, the first counts and the others are metadata
TEXTS = ("text", "question", "prompt")
TAKEN = ("image", "keep", "metadata")  # what else is no metadata

Row = Mapping[str, Any]


def questions_of(
    items: Iterable[Question | Answer | Row], failed: Callable[[Question, AdaFVError], Answer]
) -> Iterator[Question | Answer]:
    """Turn rows among questions and answers into questions; what is none becomes the answer that it failed.

    Args:
        items: rows have an `image` and a `text`, `question` or `prompt`, perhaps a `question_id`, `id` or `custom_id`
            (their number, from 0, where not), perhaps a `keep` of their own, and metadata.
        failed: makes the answer of a question that cannot be answered.
    """
    for number, item in enumerate(items):
        if isinstance(item, Question | Answer):
            yield item
        elif isinstance(item, Mapping):
            question, error = _read(number, item)
            yield question if error is None else failed(question, error)
        else:
            what = f"item {number} is of the type {type(item).__name__}, no question"
            fix = 'give questions, or dicts like {"image": "photo.jpg", "text": "what is this?"}'
            yield failed(Question(number, None, ""), InputError(what, fix))


def named(names: tuple[str, ...], row: Row) -> str | None:
    """Find which of a key's names a row uses; one that is null it does not."""
    return next((name for name in names if row.get(name) is not None), None)


def rest(row: Row) -> dict[str, Any]:
    """Give what a row holds besides a question: its metadata, but for what it has under that name."""
    known = {named(IDS, row), named(TEXTS, row), *TAKEN}
    known |= {name for name in (*IDS, *TEXTS) if row.get(name) is None}
    return {key: value for key, value in row.items() if key not in known}


def _read(number: int, row: Row) -> tuple[Question, AdaFVError | None]:
    """Make a question of a row, and say what is wrong with it."""
    id_name, text_name = named(IDS, row), named(TEXTS, row)
    question_id: Any = number if id_name is None else row[id_name]
    text: Any = None if text_name is None else row[text_name]
    own = row.get("metadata") or {}
    metadata = dict(own) if isinstance(own, Mapping) else {"metadata": own}
    metadata |= rest(row)
    image, name = row.get("image"), None
    if isinstance(image, Mapping):  # as `datasets` has one that is not decoded: bytes, and the path they came from
        name = image.get("path")
        image = name if image.get("bytes") is None else image["bytes"]
    error: AdaFVError | None = None
    if image is None:
        error = ImageError("there is no image", 'give it as "image": a path, the bytes of a file, or a PIL image')
    if not isinstance(text, str) or not text.strip():
        what = "there is no question" if text is None else f"{text_name}: {shown(text)} is no question"
        error, text = InputError(what, 'give it as "text": "what is this?"'), ""
    if not _is_id(question_id):
        error = InputError(f"{id_name}: {shown(question_id)} is no id", "an id is a string or a number")
        question_id = number
    try:
        keep = None if row.get("keep") is None else Budget.parse(row["keep"])
    except BudgetError as refused:
        keep, error = None, refused
    return Question(question_id, image, text, metadata, name, keep), error


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
