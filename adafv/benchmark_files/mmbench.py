"""MMBench (Liu et al. 2023, arXiv 2307.06281): choices, asked once for every rotation of the options.

File: the TSV as published, with images in base64. Rows whose `index` differs by millions are rotations of one question;
where the file has a question once, the rotations are made here. Rule: circular evaluation as in VLMEvalKit without a
judge model: the letter, or the one option that the answer names, has to be right in every rotation. The prompt is that
of LLaVA's `model_vqa_mmbench.py`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import LETTER, Benchmark, Row
from adafv.benchmark_files.sheets import workbook
from adafv.errors import InputError, shown

_LETTERS = "ABCD"
_ROUND = 1_000_000
_LARGEST_FIELD = 2**26
_REFERENCE = 64  # an image field that is shorter is the index of the row that has the image


def _read(questions: Path, answers: Path | None) -> Iterator[Row]:
    if answers is not None:
        raise InputError("--answers: MMBench's answers stand in its own file", "leave it out")
    rounds, images = Counter[int](), _shared_images(questions)
    for _, found in _table(questions):
        rounds[_index(found, questions) % _ROUND] += 1
    for place, found in _table(questions):
        index, options = _index(found, questions), _options(found)
        if len(options) < 2:
            raise InputError(f"{questions}: {place}: there are no options A and B", "give the TSV as published")
        image = images.get(found["image"], found["image"])
        once = rounds[index % _ROUND] == 1
        for turn in range(len(options) if once else 1):
            turned = options[turn:] + options[:turn]
            row = {"question_id": index + turn * _ROUND, "image": f"data:image/jpeg;base64,{image}"}
            row |= {"text": _prompt(found, turned), "circular": index % _ROUND, "choices": turned}
            row["rotations"] = len(options) if once else rounds[index % _ROUND]
            answer = found.get("answer", "").strip()
            if answer:
                row["answer"] = row["letter"] = _LETTERS[
                    (_place(answer, options, questions, place) - turn) % len(options)
                ]
            yield place, row | {key: found[key] for key in ("category", "l2-category") if found.get(key)}


def _table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows of the TSV, as written by pandas.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, _long_fields():
            rows = csv.DictReader(file, delimiter="\t")
            missing = {"index", "question", "A", "B", "image"} - set(rows.fieldnames or ())
            if missing:
                what = f"{path}: 1: there is no column {shown(min(missing))}"
                raise InputError(what, "give MMBench's TSV as it was published")
            for place, row in enumerate(rows, start=2):
                yield place, {key: text or "" for key, text in row.items() if key is not None}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    except (csv.Error, ValueError) as error:
        raise InputError(f"{path} is no TSV: {error}", "give MMBench's file as it was published") from error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be as long as images are."""
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _shared_images(path: Path) -> dict[str, str]:
    """Collect the images that other rows refer to, by the index of the row that has them."""
    wanted = {found["image"] for _, found in _table(path) if len(found["image"]) < _REFERENCE}
    return {found["index"]: found["image"] for _, found in _table(path) if found["index"] in wanted} if wanted else {}


def _index(found: Mapping[str, str], path: Path) -> int:
    try:
        return int(float(found["index"]))
    except ValueError:
        raise InputError(f"{path}: index: {shown(found['index'])} is no number", "give it as published") from None


def _options(found: Mapping[str, str]) -> list[str]:
    options: list[str] = []
    for letter in _LETTERS:
        if _is_none(found.get(letter, "")):
            break
        options.append(found[letter])
    return options


def _is_none(text: str) -> bool:
    return text.strip().lower() in ("", "nan", "none")


def _place(answer: str, options: list[str], path: Path, place: int) -> int:
    if answer not in _LETTERS[: len(options)]:
        raise InputError(f"{path}: {place}: answer: {shown(answer)} is none of the options", "give it as published")
    return _LETTERS.index(answer)


def _prompt(found: Mapping[str, str], options: list[str]) -> str:
    hint = found.get("hint", "")
    lines = [] if _is_none(hint) else [hint]
    return "\n".join([*lines, found["question"], *map("{}. {}".format, _LETTERS, options)])


def _submission(answers: Iterable[Mapping[str, Any]]) -> bytes:
    heads = ["index", "question", *_LETTERS, "prediction"]
    rows = [
        [one["question_id"], one["prompt"].split("\nA. ")[0], *_padded(one["metadata"].get("choices", [])), one["text"]]
        for one in answers
    ]
    return workbook([heads, *rows])


def _padded(options: list[str]) -> list[str]:
    return [*options, *[""] * (len(_LETTERS) - len(options))]


MMBENCH = Benchmark("mmbench", _read, metric="mmbench", suffix=LETTER, submission=_submission, kind=".xlsx")
