"""ScienceQA (Lu et al. 2022, arXiv 2209.09513): choices, of which one is right.

Files: LLaVA's `llava_test_CQM-A.json` (`conversations`), with `problems.json` as annotations or without, where the
second turn has the answer. Questions without an image are left out, as in the figures that are published as
ScienceQA-IMG (SQA^I): there is nothing to prune in them. Rule: `eval_science_qa.py` of LLaVA.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import LETTER, Benchmark, Row, loaded, matching, objects, value
from adafv.errors import InputError

_LETTERS = "ABCDE"


def _read(questions: Path, answers: Path | None) -> Iterator[Row]:
    problems = loaded(answers) if answers is not None else None
    for place, found in objects(questions):
        turns = value(found, "conversations", list, questions, place)
        if not found.get("image"):
            continue
        texts = [turn["value"] for turn in turns if isinstance(turn, dict) and isinstance(turn.get("value"), str)]
        if not texts or len(texts) < len(turns):
            raise InputError(f"{questions}: {place}: conversations: a turn has no 'value'", "give it as published")
        name = str(value(found, "id", (str, int), questions, place))
        row: dict[str, Any] = {"question_id": name, "image": value(found, "image", str, questions, place)}
        row["text"] = texts[0].replace("<image>", "").strip()
        if problems is not None:
            problem = matching(problems, name, answers, f"{questions}: {place}")
            row["choices"] = value(problem, "choices", list, questions, place)
            row["answer"] = _LETTERS[value(problem, "answer", int, questions, place)]
        else:
            row["answer"] = _letter(texts[1:], f"{questions}: {place}")
        yield place, row | {"letter": row["answer"]}


def _letter(turns: list[str], place: str) -> str:
    found = re.search(rf"\b([{_LETTERS}])\b\.?\s*$", turns[0].strip()) if turns else None
    if found is None:
        raise InputError(f"{place}: the second turn names no choice", "give problems.json with --answers")
    return found[1]


SCIENCEQA = Benchmark("scienceqa", _read, metric="choice", suffix=LETTER)
