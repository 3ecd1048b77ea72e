"""MME (Fu et al. 2023, arXiv 2306.13394): two yes/no questions about every image, in fourteen subtasks.

Files: the folder `MME_Benchmark_release_version`, or LLaVA's `llava_mme.jsonl` with that folder as annotations. Rule:
MME's `calculation.py`: of each subtask 100 (accuracy + accuracy+), the latter over images with both questions right;
perception and cognition are the sums over their subtasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adafv.benchmark_files.base import SHORT, Benchmark, Row, matching, objects, value, without
from adafv.errors import InputError

_YES_NO = "Please answer yes or no."
_ENDINGS = (".png", ".jpg", ".jpeg")


def _read(questions: Path, answers: Path | None) -> Iterator[Row]:
    number = 0
    if questions.is_dir():
        for category, image, lines in _release(questions):
            for question, label in lines:
                number += 1
                about = {"category": category, "label": label}
                # Of two questions about one image the ids differ, and neither depends on the order of the files.
                row = {"question_id": f"{image}/{question}", "image": image, "text": question}
                yield number, row | about
        return
    if answers is None or not answers.is_dir():
        what = f"{questions} has no labels" if answers is None else f"--answers: {answers} is no folder"
        raise InputError(what, "give the folder MME_Benchmark_release_version with --answers")
    known = {
        (category, Path(image).stem, _bare(question)): label
        for category, image, lines in _release(answers)
        for question, label in lines
    }
    for place, found in objects(questions):
        image, text = (value(found, key, str, questions, place) for key in ("image", "text"))
        category, question = value(found, "category", str, questions, place), without(text, SHORT)
        label = matching(known, (category, Path(image).stem, _bare(question)), answers, f"{questions}: {place}")
        row = {"question_id": f"{image}/{question}", "image": image, "text": question}
        yield place, row | {"category": category, "label": label}


def _release(folder: Path) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Give subtask, image and (question, label) of every text file of the release."""
    files = sorted(folder.glob("*/*.txt")) + sorted(folder.glob("*/questions_answers_YN/*.txt"))
    if not files:
        raise InputError(f"{folder} has no subtasks with questions", "give the folder MME_Benchmark_release_version")
    for path in files:
        category = path.relative_to(folder).parts[0]
        images = folder / category / "images" if path.parent.name == "questions_answers_YN" else path.parent
        image = next((images / (path.stem + end) for end in _ENDINGS if (images / (path.stem + end)).exists()), None)
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        for place, parts in enumerate(lines, start=1):
            if len(parts) != 2 or parts[1].strip().lower() not in ("yes", "no"):
                raise InputError(f"{path}: {place}: no question, tab, Yes or No", "give the file as it was published")
        name = (image or images / f"{path.stem}.jpg").relative_to(folder).as_posix()
        yield category, name, [(question.strip(), label.strip().lower()) for question, label in lines]


def _bare(question: str) -> str:
    return without(question, _YES_NO).lower()


MME = Benchmark("mme", _read, metric="mme", suffix=SHORT, by="category")
