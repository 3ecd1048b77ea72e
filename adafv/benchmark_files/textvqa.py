"""TextVQA (Singh et al. 2019, arXiv 1904.08920): what is written in the image?

Files: LLaVA's `llava_textvqa_val_v051_ocr.jsonl`, whose prompts hint at what was read by machine, with
`TextVQA_0.5.1_val.json` as annotations; or that file alone, which has no hints. Rule: `m4c_evaluator.py` of LLaVA (from
Pythia), which splits "'s" off. `textvqa-ocr` asks with the hint, as published LLaVA-1.5 figures were made; `textvqa`
without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import SHORT, Benchmark, Row, loaded, matching, objects, value, without
from adafv.errors import InputError

_HINT = "Reference OCR token:"


def _read(questions: Path, answers: Path | None, *, hints: bool) -> Iterator[Row]:
    if answers is None:
        for place, found in enumerate(_annotations(questions), start=1):
            if hints:
                raise InputError(
                    f"{questions} has no OCR hints", "give llava_textvqa_val_v051_ocr.jsonl, or use textvqa"
                )
            image = value(found, "image_id", str, questions, place)
            row = {"question_id": found.get("question_id", place), "image": f"{image}.jpg"}
            yield place, row | {"text": value(found, "question", str, questions, place)} | _answers(found)
        return
    known = {(found.get("image_id"), str(found.get("question", "")).lower()): found for found in _annotations(answers)}
    for place, found in objects(questions):
        text = without(value(found, "text", str, questions, place), SHORT)
        lines = [line for line in text.split("\n") if not line.startswith(_HINT)]
        hinted = len(lines) < len(text.split("\n"))
        if hints and not hinted:
            raise InputError(f"{questions}: {place}: there is no {_HINT!r}", "use textvqa, which asks without hints")
        image = value(found, "image", str, questions, place)
        question = "\n".join(lines)
        key = (found.get("question_id", Path(image).stem), question.lower())
        annotation = matching(known, key, answers, f"{questions}: {place}")
        row = {"question_id": annotation.get("question_id", place), "image": image, "text": text if hints else question}
        yield place, row | _answers(annotation)


def _annotations(path: Path) -> list[dict[str, Any]]:
    whole = loaded(path)
    found: list[dict[str, Any]] = value(whole if isinstance(whole, dict) else {}, "data", list, path, "the top")
    return found


def _answers(found: dict[str, Any]) -> dict[str, Any]:
    return {"answers": found["answers"]} if "answers" in found else {}


TEXTVQA = Benchmark("textvqa", partial(_read, hints=False), metric="textvqa", suffix=SHORT)
TEXTVQA_OCR = Benchmark("textvqa-ocr", partial(_read, hints=True), metric="textvqa", suffix=SHORT)
