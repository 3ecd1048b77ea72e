"""GQA (Hudson and Manning 2019, arXiv 1902.09506): compositional questions about scene graphs.

Files: `testdev_balanced_questions.json` (an object of questions by id), or LLaVA's `llava_gqa_testdev_balanced.jsonl`
with that file as annotations. Rule: GQA's `eval.py` on answers as LLaVA's `convert_gqa_for_eval.py` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import SHORT, Benchmark, Row, json_bytes, loaded, matching, objects, value
from adafv.errors import InputError


def _read(questions: Path, answers: Path | None) -> Iterator[Row]:
    if answers is None:
        for number, (name, found) in enumerate(_annotations(questions).items(), start=1):
            image = f"{value(found, 'imageId', str, questions, name)}.jpg"
            row = {"question_id": name, "image": image, "text": value(found, "question", str, questions, name)}
            yield number, row | _answer(found)
        return
    known = _annotations(answers)
    for place, found in objects(questions):
        name = str(value(found, "question_id", (str, int), questions, place))
        annotation = matching(known, name, answers, f"{questions}: {place}")
        row = {"question_id": name, "image": value(found, "image", str, questions, place)}
        yield place, row | {"text": value(found, "text", str, questions, place)} | _answer(annotation)


def _annotations(path: Path) -> dict[str, dict[str, Any]]:
    found = loaded(path)
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise InputError(f"{path} is no object of questions by id", "give testdev_balanced_questions.json as published")
    return found


def _answer(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("answer", "types") if name in found}


def _submission(answers: Iterable[Mapping[str, Any]]) -> bytes:
    return json_bytes(
        [
            {"questionId": str(one["question_id"]), "prediction": (one["text"] or "").rstrip(".").lower()}
            for one in answers
        ]
    )


GQA = Benchmark("gqa", _read, metric="gqa", suffix=SHORT, submission=_submission)
