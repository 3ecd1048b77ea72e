"""What the papers' tables are made of: models, files, one sweep for each table, and the figure that papers print."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODELS = [
    "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf", "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava-hf/llava-v1.6-vicuna-13b-hf", "llava-hf/llava-v1.6-34b-hf",
]  # fmt: skip
BUDGETS = {True: "640,320,160", False: "192,128,64,32"}  # of tiles, of one crop
FILES = {  # questions, annotations, images, as in LLaVA's Evaluation.md
    "gqa": ("gqa/llava_gqa_testdev_balanced.jsonl", "gqa/testdev_balanced_questions.json", "gqa/images"),
    "mmbench": ("mmbench/mmbench_dev_20230712.tsv", None, "mmbench"),
    "mme": ("MME/MME_Benchmark_release_version", None, "MME/MME_Benchmark_release_version"),
    "pope": ("pope/coco", None, "pope/val2014"),
    "scienceqa": ("scienceqa/llava_test_CQM-A.json", "scienceqa/problems.json", "scienceqa/images/test"),
    "textvqa-ocr": (
        "textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/TextVQA_0.5.1_val.json", "textvqa/train_images",
    ),
    "vizwiz": ("vizwiz/val.json", None, "vizwiz/val"),
    "vqav2": (
        "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/v2_mscoco_val2014_annotations.json", "vqav2/val2014",
    ),
}  # fmt: skip
OTHER_SPLIT = {"vqav2", "vizwiz"}  # published on test splits, which only their servers mark
PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parent / "published.json").read_text())

Adafv = Callable[[Sequence[str]], int]
"""Runs `adafv ARGUMENTS`, and returns its exit code."""


class Stopped(Exception):
    """Ends the run with an exit code."""


@dataclass(frozen=True)
class Table:
    """One benchmark with one model: an `adafv sweep`."""

    model: str
    benchmark: str
    data: Path
    out: Path
    chosen: argparse.Namespace

    @property
    def files(self) -> list[Path]:
        questions, answers, _ = FILES[self.benchmark]
        return [self.data / name for name in (questions, answers) if name is not None]

    @property
    def folder(self) -> Path:
        return self.out / self.model.strip("/").replace("/", "--")

    @property
    def report(self) -> Path:
        return self.folder / f"{self.benchmark}.json"

    @property
    def input(self) -> list[str]:
        questions, answers, images = FILES[self.benchmark]
        named = [] if answers is None else ["--answers", str(self.data / answers)]
        limit = [] if self.chosen.limit is None else ["--limit", str(self.chosen.limit)]
        where = [str(self.data / questions), "--benchmark", self.benchmark, *named]
        where += ["--image-folder", str(self.data / images), "-m", self.model]
        return [*where, "--protocol", "published", *limit, *self.chosen.flags]

    def sweep(self, adafv: Adafv, keep: str, pruners: str) -> None:
        """Answer, or go on; raises `Stopped` where the run was interrupted or cannot go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{self.benchmark}.jsonl"
        resume = ["--resume"] if log.exists() and log.stat().st_size else []
        command = ["sweep", *self.input, "--keep", keep, "--pruner", pruners, "-o", str(log), *resume]
        code = adafv([*command, "--report", str(self.report)])
        if code not in (0, 1):  # 1: some questions failed, which the report counts
            raise Stopped(code)

    def scores(self) -> dict[str, float]:
        """The figure that papers print, by setting."""
        points = json.loads(self.report.read_text())["points"]
        return {name_of(point): found for point in points if (found := figure(self.benchmark, point)) is not None}


def name_of(point: dict[str, Any]) -> str:
    return "unpruned" if point["pruner"] == "none" else f"{point['pruner']} {point['keep']}"


def figure(benchmark: str, point: dict[str, Any]) -> float | None:
    """POPE: mean F1 of its categories; MME: perception; all others: percent right."""
    if benchmark == "pope":
        groups = [group["yes_no"]["f1"] for group in (point.get("groups") or {}).values() if group["yes_no"]]
        found = [group["value"] for group in groups if group]
        return 100 * sum(found) / len(found) if found else None
    if benchmark == "mme":
        perception = (point.get("scores") or {}).get("perception")
        return None if perception is None else float(perception["value"])
    return None if point["accuracy"] is None else 100 * float(point["accuracy"]["value"])


def published(model: str) -> dict[str, dict[str, float]]:
    """Collect the published figures of a model by setting, as `name_of` names it, and benchmark.

    Figures of a split that only a server can mark are left out. Pruned ones come from evaluations whose unpruned model
    is not always the one of the first row: `unpruned (SOURCE)` is theirs.
    """
    found: dict[str, dict[str, float]] = {}
    for one in PUBLISHED["figures"]:
        if one["model"] == model:
            figures = {name: value for name, value in one.items() if name in FILES and name not in OTHER_SPLIT}
            found[one.get("setting", "unpruned")] = figures
    return found
