"""Rules that might better AdaFV, on the demo's held-out questions: `python benchmarks/fusion_study.py --set hard`.

Every image is encoded once, every rule answers every question with the library's own language model stages. Prints a
Markdown table: percent right at each budget, and for `--against` a rule the paired difference to it with its 95 %
interval over images. Choose on `--split tune`, report on `--split report`, with several `--seed-offset`.
`--auto 44%,90%` asks another question: is a budget that adapts better than its mean, for every question the same?
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from unittest import mock

import numpy as np
import torch
from fusion_rules import RULES
from paired import ahead

import adafv
from adafv import pruners
from adafv.pruners import Pruner
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.timing import Stopwatch
from recipe.evaluation import Probe, pictures, probes
from recipe.worlds import held_out

log = logging.getLogger(__name__)

BUDGETS = (64, 32, 16)
VISUAL = 256  # tokens of each image
BATCH = 60
EVERYTHING = [adafv.RunSettings(pruner="visionzip")]  # which reads what is not part of every encoding


class Study:
    """Questions about encoded images, and a model to ask."""

    def __init__(self, asked: Sequence[Probe], checkpoint: str) -> None:
        self.asked = asked
        self.model = adafv.load(checkpoint, dtype="float32", device_map="cpu")
        pipeline = self.model.pipeline
        encoded = {
            (series, scene): pipeline.encode([pipeline.preprocess(picture)], Stopwatch(()), EVERYTHING)[0]
            for series in {probe.series for probe in asked}
            for scene, picture in pictures([probe for probe in asked if probe.series == series]).items()
        }
        questions = [adafv.Question(number, None, probe.text) for number, probe in enumerate(asked)]
        self._requests = [
            Request(question, self.model.render(question, RunSettings()), encoded[probe.series, probe.scene], None)
            for question, probe in zip(questions, asked, strict=True)
        ]

    def right(self, rule: str, keep: str | int) -> np.ndarray:
        """(questions,) 1 where the answer is the true one."""
        return self.answered(rule, keep)[0]

    def answered(self, rule: str, keep: str | int) -> np.ndarray:
        """(2, questions): 1 where the answer is the true one, and the visual tokens kept for it."""
        settings = RunSettings(keep=keep, pruner=rule, max_new_tokens=3)
        order = sorted(range(len(self._requests)), key=lambda number: self._requests[number].prompt.text_tokens)
        found = np.zeros((2, len(order)))
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            answers = self.model.run([self._requests[number] for number in numbers], settings)
            for number, answer in zip(numbers, answers, strict=True):
                found[:, number] = answer.text == self.asked[number].answer, answer.tokens.kept
        return found

    def ahead(self, first: np.ndarray, second: np.ndarray) -> str:
        """How far `first` is ahead of `second`, in points of percent, with its interval."""
        scenes = dict.fromkeys((probe.series, probe.scene) for probe in self.asked)
        numbers = {scene: number for number, scene in enumerate(scenes)}
        return ahead(np.array([numbers[probe.series, probe.scene] for probe in self.asked]), first, second)


def adapted(study: Study, rules: Sequence[str], shares: Sequence[str]) -> str:
    """The table of `auto` against the number that is its mean, rounded up."""
    dense = study.right("none", "all")
    lines = [
        f"{len(dense)} questions, unpruned {100 * dense.mean():.1f}",
        "",
        "| pruner | keep | kept, mean | right | all the same | right | auto is ahead by |",
        "|---" * 7 + "|",
    ]
    for rule in rules:
        for share in shares:
            right, kept = study.answered(rule, f"auto:{share}")
            number = math.ceil(round(kept.mean(), 6))
            fixed = study.right(rule, number)
            cells = [rule, f"auto:{share}", f"{kept.mean():.1f} ({100 * kept.mean() / VISUAL:.1f} %)"]
            cells += [f"{100 * right.mean():.1f}", str(number), f"{100 * fixed.mean():.1f}", study.ahead(right, fixed)]
            lines.append(f"| {' | '.join(cells)} |")
            log.info("%s", lines[-1])
    return "\n".join(lines)


def measured(study: Study, rules: Sequence[str], against: str) -> str:
    """The table."""
    dense = study.right("none", "all")
    lines = [
        f"{len(dense)} questions, unpruned {100 * dense.mean():.1f}",
        "",
        "| rule | " + " | ".join(map(str, BUDGETS)) + " |",
        "|---" * (len(BUDGETS) + 1) + "|",
    ]
    base = {keep: study.right(against, keep) for keep in BUDGETS} if against else {}
    for rule in rules:
        cells = []
        for keep in BUDGETS:
            right = study.right(rule, keep)
            cell = f"{100 * right.mean():.1f}"
            if base and rule != against:
                cell += f" ({study.ahead(right, base[keep])})"
            cells.append(cell)
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
        log.info("%s", lines[-1])
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    published = [name for name in pruners.names() if name != "none"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=("plain", "hard"), default="plain")
    parser.add_argument("--split", choices=("tune", "report"), default="tune")
    parser.add_argument("--seed-offset", type=int, nargs="+", default=[0], help="series of scenes, pooled")
    parser.add_argument("--per-kind", type=int, default=100)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rules", default="", help="names, separated by semicolons; default: all that were tried")
    parser.add_argument("--against", default="")
    parser.add_argument("--auto", default="", help="shares of the evidence, separated by commas: 44%%,90%%")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)
    asked = [
        probe
        for offset in options.seed_offset
        for probe in probes(options.per_kind, held_out(options.set, options.split, offset))
    ]
    tried = {name: Pruner(rule, frozenset({"text", "tokens", "features"})) for name, rule in RULES.items()}
    rules = options.rules.split(";") if options.rules else [*published, *tried]
    unknown = [name for name in [*rules, options.against] if name and name not in {*published, *tried}]
    if unknown:
        parser.error(f"no such rule: {'; '.join(unknown)}; choose from {'; '.join([*published, *tried])}")
    ours, check = pruners.get, pruners.check
    with (
        mock.patch.object(pruners, "get", lambda name: tried[name] if name in tried else ours(name)),
        mock.patch.object(pruners, "check", lambda name: None if name in tried else check(name)),
    ):
        study, shares = Study(asked, options.model), [share for share in options.auto.split(",") if share]
        print(adapted(study, rules, shares) if shares else measured(study, rules, options.against))


if __name__ == "__main__":
    main()
