"""POPE (Li et al. 2023, arXiv 2305.10355): is there such an object in the image?

Files: `coco_pope_random.json` and its kin (JSON objects, one a line, with `label`), a folder of the three, or LLaVA's
`llava_pope_test.jsonl` with the folder of labels as annotations. Rule: `eval_pope.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adafv.benchmark_files.base import SHORT, Benchmark, Row, matching, objects, value
from adafv.errors import InputError

_PREFIX = "coco_pope_"


def _read(questions: Path, answers: Path | None) -> Iterator[Row]:
    files = sorted(questions.glob(f"{_PREFIX}*.json")) if questions.is_dir() else [questions]
    if not files:
        raise InputError(f"{questions} has no {_PREFIX}*.json", "give the folder of POPE's three files, or one of them")
    labels = _labels(answers) if answers is not None else None
    seen, number = Counter[str](), 0
    for path in files:
        for place, found in objects(path):
            number += 1
            text = value(found, "text", str, path, place)
            row: dict[str, Any] = {"image": value(found, "image", str, path, place), "text": text}
            category = found.get("category") or path.stem.removeprefix(_PREFIX)
            known = category if path.stem.startswith(_PREFIX) or "category" in found else ""
            name = f"{known}/{found.get('question_id', place)}".removeprefix("/")
            seen[name] += 1  # the three files joined into one have each id three times
            row |= {"question_id": name if seen[name] == 1 else f"{name}#{seen[name]}", "category": known or "pope"}
            if labels is None:
                row["label"] = value(found, "label", str, path, place)
            else:
                key = (row["category"], row["image"], _question(text))
                row["label"] = matching(labels, key, answers, f"{path}: {place}")
            yield number, row


def _labels(folder: Path) -> dict[tuple[str, str, str], str]:
    files = sorted(folder.glob(f"{_PREFIX}*.json")) if folder.is_dir() else [folder]
    return {
        (path.stem.removeprefix(_PREFIX), value(one, "image", str, path, place), _question(one.get("text", ""))): value(
            one, "label", str, path, place
        )
        for path in files
        for place, one in objects(path)
    }


def _question(text: str) -> str:
    return text.strip().removesuffix(SHORT).strip().lower()


POPE = Benchmark("pope", _read, metric="yes-no", suffix=SHORT, by="category")
