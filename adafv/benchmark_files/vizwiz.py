"""VizWiz (Gurari et al. 2018, arXiv 1802.08218): questions of blind people, some of which cannot be answered.

Files: `val.json` or `test.json` as published (an array), or LLaVA's `llava_test.jsonl` with the former as annotations;
the test split is marked on a server. Rule: VQA's, as in VizWiz's own evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import SHORT, Benchmark, Row, json_bytes, matching, objects, value
from adafv.quality.official import textvqa_words

UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."


def _read(questions: Path, answers: Path | None) -> Iterator[Row]:
    known = None if answers is None else {one.get("image"): one for _, one in objects(answers)}
    for place, found in objects(questions):
        image = value(found, "image", str, questions, place)
        text = found.get("text") or value(found, "question", str, questions, place)
        annotation = found if known is None else matching(known, image, answers, f"{questions}: {place}")
        row: dict[str, Any] = {"question_id": found.get("question_id", image), "image": image, "text": text}
        if "answers" in annotation:
            row |= {"answers": value(annotation, "answers", list, questions, place)}
        yield place, row | {key: annotation[key] for key in ("answer_type", "answerable") if key in annotation}


def _submission(answers: Iterable[Mapping[str, Any]]) -> bytes:
    return json_bytes([{"image": one["image"]["name"], "answer": textvqa_words(one["text"] or "")} for one in answers])


VIZWIZ = Benchmark("vizwiz", _read, metric="vqa", suffix=f"{UNANSWERABLE}\n{SHORT}", submission=_submission)
