"""Should the questions about an image share one choice of tokens? `python benchmarks/one_choice.py --set hard`.

AdaFV chooses for every question, so that no prefill is shared. Two other ways, with the questions about an image known
in groups: `image` reads them as one text, for which AdaFV chooses once; `split` takes of that choice what saliency
chose, which stands first and is shared, and adds what each question's own words match best. Both choose as published
where a group has one question. Prints a Markdown table: percent right, tokens prefilled for a question, and the
paired difference to a choice by question with as many tokens, with its 95 % interval over images.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Sequence
from unittest import mock

import numpy as np
import torch
from fusion_study import BATCH, VISUAL, Study
from torch import Tensor

from adafv.choosing import Kept
from adafv.evidence import Selection
from adafv.pruners.mixture import mixture
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.signals.gathering import gather_evidence
from adafv.signals.ranking import ranking
from recipe.evaluation import probes
from recipe.worlds import held_out

log = logging.getLogger(__name__)
KNOWN = (4, 10)


class Choices(Study):
    """Questions in groups, each about one image."""

    def known(self, count: int) -> list[list[int]]:
        """Group the questions about each image, in order, at most `count` together."""
        about = defaultdict[tuple[object, int], list[int]](list)
        for number, probe in enumerate(self.asked):
            about[probe.series, probe.scene].append(number)
        return [numbers[start : start + count] for numbers in about.values() for start in range(0, len(numbers), count)]

    def chosen(self, way: str, keep: int, count: int) -> tuple[np.ndarray, float]:
        """(questions,) 1 where the answer is the true one; and the tokens prefilled for one, on average."""
        settings, right, prefilled = RunSettings(keep=keep, max_new_tokens=3), np.zeros(len(self.asked)), 0

        def prune(requests: Sequence[Request], texts: Sequence[Tensor], *_: object) -> list[Kept]:
            nonlocal prefilled
            kept: list[Kept] = []
            while len(kept) < len(requests):
                rows = [
                    row for row in range(len(kept), len(requests)) if requests[row].image is requests[len(kept)].image
                ]
                rows = rows[: sizes.pop(0)]
                before = len(requests[rows[0]].prompt.before)
                words = [texts[row][before:] for row in rows]
                group, shared = GROUPS[way](requests[rows[0]], words, keep)
                kept += group
                prefilled += before + shared + sum(len(own) + keep - shared for own in words)
            return kept

        batches: list[list[list[int]]] = [[]]
        for group in self.known(count):
            if sum(map(len, batches[-1])) + len(group) > BATCH:
                batches.append([])
            batches[-1].append(group)
        with mock.patch.object(self.model.pipeline, "prune", prune):
            for batch in batches:
                sizes, numbers = [len(group) for group in batch], [number for group in batch for number in group]
                answers = self.model.run([self._requests[number] for number in numbers], settings)
                for number, answer in zip(numbers, answers, strict=True):
                    right[number] = answer.text == self.asked[number].answer
        return right, prefilled / len(self.asked)


def once(request: Request, words: Sequence[Tensor], keep: int) -> Selection:
    """Choose for all questions of a group, as if they were one text."""
    text = torch.cat(list(words))
    return mixture(gather_evidence([request.image], [text], [(0, len(text))], [0], {"text"}), keep)


def by_image(request: Request, words: Sequence[Tensor], keep: int) -> tuple[list[Kept], int]:
    """One choice for all of a group; all its tokens are shared."""
    return [Kept.chosen(request.image, once(request, words, keep), 0)] * len(words), keep


def by_split(request: Request, words: Sequence[Tensor], keep: int) -> tuple[list[Kept], int]:
    """What saliency chose for the group, then what each question's own words match best of the rest."""
    image, selection = request.image, once(request, words, keep)
    salient = selection.indices[0][selection.by_saliency[0]]
    left = torch.ones(1, image.visual, dtype=torch.bool).index_fill_(1, salient, False)
    kept = []
    for text in words:
        evidence = gather_evidence([image], [text], [(0, len(text))], [0], {"text"})
        own = ranking(evidence.relevance, left, keep - len(salient))[0].sort().values
        places = image.candidates[torch.cat([salient, own])]
        kept.append(Kept(image.packed[places], places))
    return kept, len(salient)


GROUPS = {"image": by_image, "split": by_split}


def measured(study: Choices, budgets: Sequence[int]) -> str:
    """The table."""
    whole = study.right("none", "all")
    text = np.mean([request.prompt.text_tokens for request in study._requests])
    before = len(study._requests[0].prompt.before)
    lines = [f"{len(whole)} questions about {len(study.known(10**6))} images, unpruned {100 * whole.mean():.1f}", ""]
    lines += [
        "| way | known together | keep | right | prefilled a question | ahead of `question` by |",
        "|---" * 6 + "|",
    ]

    def line(way: str, known: str, keep: int, right: np.ndarray, tokens: float, ahead: str = "") -> None:
        cells = [way, known, str(keep), f"{100 * right.mean():.1f}", f"{tokens:.0f}", ahead]
        lines.append(f"| {' | '.join(cells)} |")
        log.info("%s", lines[-1])

    for count in (1, *KNOWN):
        groups = len(study.known(count)) / len(whole)
        line("all", str(count), VISUAL, whole, groups * (before + VISUAL) + text - before)
    for keep in budgets:
        base = study.right("adafv", keep)
        line("question", "any", keep, base, keep + text)
        for way in GROUPS:
            for count in KNOWN:
                right, tokens = study.chosen(way, keep, count)
                line(way, str(count), keep, right, tokens, study.ahead(right, base))
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=("plain", "hard"), default="hard")
    parser.add_argument("--split", choices=("tune", "report"), default="report")
    parser.add_argument("--seed-offset", type=int, nargs="+", default=[0], help="series of scenes, pooled")
    parser.add_argument("--per-kind", type=int, default=100)
    parser.add_argument("--keep", type=int, nargs="+", default=[16, 32, 64])
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)
    series = [held_out(options.set, options.split, offset) for offset in options.seed_offset]
    study = Choices([probe for one in series for probe in probes(options.per_kind, one)], "demo")
    if (study.chosen("image", options.keep[0], 1)[0] != study.right("adafv", options.keep[0])).any():
        parser.error("a choice for one question is not the published one")
    print(measured(study, options.keep))


if __name__ == "__main__":
    main()
