"""VQAv2 (Goyal et al. 2017, arXiv 1612.00837): ten people's answers to every question.

Files: `v2_OpenEnded_mscoco_val2014_questions.json` or LLaVA's `llava_vqav2_mscoco_test-dev2015.jsonl`, with
`v2_mscoco_val2014_annotations.json` as annotations; the test splits are marked on a server. Rule: `vqaEval.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import SHORT, Benchmark, Row, json_bytes, loaded, matching, objects, value
from adafv.quality.official import textvqa_words


def _read(questions: Path, answers: Path | None) -> Iterator[Row]:
    known = None
    if answers is not None:
        annotations = value(loaded(answers), "annotations", list, answers, "the top")
        known = {one.get("question_id"): one for one in annotations if isinstance(one, dict)}
    for place, row in _llava(questions) if questions.suffix == ".jsonl" else _official(questions):
        if known is not None:
            annotation = matching(known, row["question_id"], answers, f"{questions}: {place}")
            row["answers"] = value(annotation, "answers", list, questions, place)
            row |= {key: annotation[key] for key in ("answer_type", "question_type") if key in annotation}
        yield place, row


def _llava(path: Path) -> Iterator[Row]:
    for place, found in objects(path):
        row = {name: value(found, name, str, path, place) for name in ("image", "text")}
        yield place, {"question_id": value(found, "question_id", (int, str), path, place)} | row


def _official(path: Path) -> Iterator[Row]:
    whole = loaded(path)
    split = value(whole, "data_subtype", str, path, "the top").replace("test-dev", "test")
    for place, found in enumerate(value(whole, "questions", list, path, "the top"), start=1):
        image = value(found, "image_id", int, path, place)
        row = {"question_id": value(found, "question_id", int, path, place)}
        yield (
            place,
            row | {"image": f"COCO_{split}_{image:012d}.jpg", "text": value(found, "question", str, path, place)},
        )


def _submission(answers: Iterable[Mapping[str, Any]]) -> bytes:
    return json_bytes(
        [{"question_id": one["question_id"], "answer": textvqa_words(one["text"] or "")} for one in answers]
    )


VQAV2 = Benchmark("vqav2", _read, metric="vqa", suffix=SHORT, submission=_submission)
