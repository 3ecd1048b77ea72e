"""Files as benchmarks ship them, made of the demo's questions about its eight drawn scenes.

`python -m tests.benchmark_forms FOLDER` writes all of them, laid out as LLaVA's Evaluation.md has them.
"""

from __future__ import annotations

import base64
import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent.parent / "sample_images"
SCENES = ["street", "village", "farm", "town", "lake", "bay", "meadow", "park"]
SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
COLORS = ["red", "yellow", "blue", "orange"]


@dataclass(frozen=True)
class Form:
    """What is given to `--benchmark`."""

    questions: Path
    answers: Path | None = None
    images: Path = SAMPLES


def demo() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLES / "questions.jsonl").read_text().splitlines()]


def yes_no() -> list[dict[str, Any]]:
    return [line for line in demo() if line["answer"] in ("yes", "no")]


def lines(path: Path, found: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    return path


def whole(path: Path, found: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def jpgs(folder: Path) -> Path:
    """The scenes under names that end in .jpg, as photographs have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        shutil.copy(SAMPLES / f"{scene}.png", folder / f"{scene}.jpg")
    return folder


def pope(folder: Path) -> Form:
    """Three files, in each of which ids begin at 1."""
    for number, category in enumerate(("adversarial", "popular", "random")):
        some = yes_no()[number::3]
        lines(
            folder / f"coco_pope_{category}.json",
            [
                {"question_id": place, "image": one["image"], "text": one["text"], "label": one["answer"]}
                for place, one in enumerate(some, start=1)
            ],
        )
    return Form(folder)


def textvqa(folder: Path) -> Form:
    """LLaVA's prompts with hints, and the annotations beside: of ten people six say so, three else, one an article."""
    asked = [line for line in demo() if line["answer"] not in ("yes", "no")][:8]
    people = [[one["answer"]] * 6 + [f"{one['answer']}'s"] * 3 + ["a"] for one in asked]
    data = [
        {"question_id": 100 + place, "image_id": Path(one["image"]).stem, "question": one["text"], "answers": said}
        for place, (one, said) in enumerate(zip(asked, people, strict=True))
    ]
    prompts = [
        {
            "image": one["image"],
            "text": f"{one['text']}\nReference OCR token: STOP, 12\n{SHORT}",
            "question_id": Path(one["image"]).stem,
        }
        for one in asked
    ]
    annotations = whole(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": data})
    return Form(lines(folder / "llava_textvqa_val_v051_ocr.jsonl", prompts), annotations)


def gqa(folder: Path) -> Form:
    asked = {f"20{one['question_id']:04d}": one for one in demo()}
    annotations = {
        name: {"question": one["text"], "imageId": Path(one["image"]).stem, "answer": one["answer"]}
        for name, one in asked.items()
    }
    prompts = [
        {"question_id": name, "image": one["image"], "text": f"{one['text']}\n{SHORT}", "category": "default"}
        for name, one in asked.items()
    ]
    return Form(
        lines(folder / "llava_gqa_testdev_balanced.jsonl", prompts),
        whole(folder / "testdev_balanced_questions.json", annotations),
    )


def mme(folder: Path) -> Form:
    """The release's folder: one subtask has images and questions together, the other apart."""
    for number, scene in enumerate(SCENES):
        pair = [one for one in yes_no() if one["image"] == f"{scene}.png"][:2]
        if len(pair) < 2:
            continue
        together = number % 2 == 0
        category = folder / ("existence" if together else "code_reasoning")
        images, texts = (category, category) if together else (category / "images", category / "questions_answers_YN")
        for place in (images, texts):
            place.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / f"{scene}.png", images)
        said = [f"{one['text']} Please answer yes or no.\t{one['answer'].capitalize()}\n" for one in pair]
        (texts / f"{scene}.txt").write_text("".join(said))
    return Form(folder, images=folder)


def choices(answer: str) -> list[str]:
    """Four options, the right one at a place that depends on it."""
    others = [color for color in COLORS if color != answer][:3]
    place = len(answer) % 4
    return [*others[:place], answer, *others[place:]]


def scienceqa(folder: Path) -> Form:
    """Two of the questions have no image."""
    found, problems = list[dict[str, Any]](), dict[str, Any]()
    for one in demo()[:10]:
        options = choices(one["answer"])
        listed = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
        name = str(one["question_id"])
        has_image = one["question_id"] not in (3, 7)
        mark = "<image>\n" if has_image else ""
        asked = f"{mark}{one['text']}\nContext: N/A\nOptions: {listed}"
        turns = [
            {"from": "human", "value": asked},
            {"from": "gpt", "value": f"{'ABCD'[options.index(one['answer'])]}."},
        ]
        found.append({"id": name} | ({"image": one["image"]} if has_image else {}) | {"conversations": turns})
        problems[name] = {"choices": options, "answer": options.index(one["answer"])}
    return Form(whole(folder / "llava_test_CQM-A.json", found), whole(folder / "problems.json", problems))


def mmbench(folder: Path) -> Form:
    """Each question once, so that its options are rotated; and one whose rotation the file has itself."""
    folder.mkdir(parents=True, exist_ok=True)
    path, heads = folder / "mmbench_dev.tsv", ["index", "question", "hint", *"ABCD", "answer", "category", "image"]
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(heads)
        for place, one in enumerate(demo()[:3]):
            options = choices(one["answer"])
            image = base64.b64encode((SAMPLES / one["image"]).read_bytes()).decode()
            answer = "ABCD"[options.index(one["answer"])]
            table.writerow([place, one["text"], "nan", *options, answer, "scene", image])
        one = demo()[3]
        image = base64.b64encode((SAMPLES / one["image"]).read_bytes()).decode()
        table.writerow([3, one["text"], "Look closely.", "yes", "no", "", "", "B", "scene", image])
        table.writerow([1_000_003, one["text"], "Look closely.", "no", "yes", "", "", "A", "scene", "3"])
    return Form(path)


def vqav2(folder: Path) -> Form:
    images = folder / "val2014"
    images.mkdir(parents=True)
    for number, scene in enumerate(SCENES):
        shutil.copy(SAMPLES / f"{scene}.png", images / f"COCO_val2014_{number:012d}.jpg")
    asked, annotations = [], []
    for one in demo():
        about = {"question_id": one["question_id"], "image_id": SCENES.index(Path(one["image"]).stem)}
        people = [{"answer": one["answer"], "answer_id": number} for number in range(10)]
        asked.append(about | {"question": one["text"]})
        annotations.append(about | {"answers": people, "answer_type": "other", "question_type": "what"})
    return Form(
        whole(folder / "questions.json", {"data_subtype": "val2014", "questions": asked}),
        whole(folder / "annotations.json", {"annotations": annotations}),
        images,
    )


def vizwiz(folder: Path) -> Form:
    found = [
        {
            "image": one["image"], "question": one["text"], "answerable": 1, "answer_type": "other",
            "answers": [{"answer": one["answer"], "answer_confidence": "yes"}] * 10,
        }
        for one in demo()[::8]
    ]  # fmt: skip
    return Form(whole(folder / "val.json", found))


FORMS = {
    "pope": pope, "textvqa": textvqa, "textvqa-ocr": textvqa, "gqa": gqa, "mme": mme, "scienceqa": scienceqa,
    "mmbench": mmbench, "vqav2": vqav2, "vizwiz": vizwiz,
}  # fmt: skip


def laid_out(folder: Path) -> Path:
    """All of them under the names of LLaVA's Evaluation.md."""
    for name in ("gqa", "mmbench", "scienceqa", "textvqa", "vizwiz", "vqav2"):
        FORMS[name](folder / name)
    pope(folder / "pope" / "coco")
    mme(folder / "MME" / "MME_Benchmark_release_version")
    (folder / "mmbench" / "mmbench_dev.tsv").rename(folder / "mmbench" / "mmbench_dev_20230712.tsv")
    names = {"questions": "OpenEnded_mscoco_val2014_questions", "annotations": "mscoco_val2014_annotations"}
    for old, new in names.items():
        (folder / "vqav2" / f"{old}.json").rename(folder / "vqav2" / f"v2_{new}.json")
    for images in ("gqa/images", "scienceqa/images/test", "textvqa/train_images", "vizwiz/val", "pope/val2014"):
        shutil.copytree(SAMPLES, folder / images, ignore=lambda *_: {"show", "questions.jsonl", "hard_questions.jsonl"})
    return folder


if __name__ == "__main__":
    laid_out(Path(sys.argv[1]))
