"""AdaFV's rule on several crops, and three others: `python benchmarks/crop_rules.py sweep QUESTIONS -m demo-next`.

The published text speaks of one crop. Here every argument goes to `adafv`, which knows three pruners more:
`adafv-free`, whose saliency list gives no crop a fair share; `adafv-softmax`, whose similarity is a softmax within
each crop instead of one over all; and `adafv-neither` with both.

`python benchmarks/crop_rules.py compare JOINT EACH` prints what `--crop-budget each` gains for every pruner and budget,
from the files of answers that two such sweeps left.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest import mock

import numpy as np
from paired import ahead
from torch import Tensor

from adafv import pruners
from adafv.evidence import Evidence, Selection
from adafv.pruners import GROUP, Pruner
from adafv.pruners.mixture import mixture
from adafv.quality.metrics import accepted, mark
from adafv.signals.similarity import SHARPNESS
from adafv_cli.app import main


def free(evidence: Evidence, keep: int) -> Selection:
    """Rank saliency over all crops as over one."""
    return mixture(replace(evidence, num_crops=(1,) * len(evidence.num_crops)), keep)


def within(evidence: Evidence, keep: int) -> Selection:
    """Take the softmax of every text token within each crop."""
    return mixture(replace(evidence, similarity=softmax_of_crops(evidence)), keep)


def neither(evidence: Evidence, keep: int) -> Selection:
    """Both together."""
    return free(replace(evidence, similarity=softmax_of_crops(evidence)), keep)


def softmax_of_crops(evidence: Evidence) -> Tensor:
    """Compute (B, T, N) of which each crop's part sums to one, for text tokens that are there."""
    result = evidence.similarity.new_zeros(evidence.similarity.shape)
    for number in range(max(evidence.num_crops)):
        own = ((evidence.crop == number) & evidence.valid)[:, None]
        shares = (SHARPNESS * evidence.cosine).masked_fill(~own, -float("inf")).softmax(dim=-1)
        result = result + shares.nan_to_num() * (evidence.similarity.sum(-1, keepdim=True) > 0)
    return result


FREE, WITHIN, NEITHER = (Pruner(rule, reads=frozenset({"text"})) for rule in (free, within, neither))
OTHERS = {"adafv-free": "FREE", "adafv-softmax": "WITHIN", "adafv-neither": "NEITHER"}

Marks = dict[tuple[str, str], dict[object, tuple[str, float]]]
"""Image and mark of each question, by pruner and budget."""


def marks(path: Path) -> Marks:
    """Read a sweep's file of answers."""
    found: Marks = {}
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        right = accepted(line["metadata"])
        if right is not None:
            value = mark(line["text"] or "", right).exact
            found.setdefault((line["pruner"], line["keep"]), {})[line["question_id"]] = line["image"]["key"], value
    return found


def compare(joint: Path, each: Path) -> None:
    """Print a Markdown table."""
    together, apart = marks(joint), marks(each)
    both = [setting for setting in together if setting in apart and setting[0] != "none"]
    keeps = list(dict.fromkeys(keep for _, keep in both))
    print(f"| each to joint | {' | '.join(keeps)} |\n|{'---|' * (len(keeps) + 1)}")
    for pruner in dict.fromkeys(pruner for pruner, _ in both):
        cells = [gain(together[pruner, keep], apart[pruner, keep]) if (pruner, keep) in both else "" for keep in keeps]
        print(f"| {pruner} | {' | '.join(cells)} |")


def gain(joint: dict[object, tuple[str, float]], each: dict[object, tuple[str, float]]) -> str:
    """Compare the questions that both answered."""
    asked = [one for one in joint if one in each]
    images = np.unique([joint[one][0] for one in asked], return_inverse=True)[1]
    right, other = (np.array([marked[one][1] for one in asked]) for marked in (each, joint))
    return ahead(images, right, other)


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        compare(*map(Path, sys.argv[2:4]))
    else:
        points = {name: EntryPoint(name, f"crop_rules:{value}", GROUP) for name, value in OTHERS.items()}
        with mock.patch.object(pruners, "_others", lambda: points):
            main()
