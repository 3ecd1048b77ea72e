"""Write held-out wide pictures and questions: `python -m recipe.next.heldout --split report --out FOLDER`.

The questions are the same that the gates ask. `report` is what published figures rest on; `tune` is for choosing a
setting, from other scenes.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngInfo

from recipe.facts import facts_of
from recipe.next.mosaic import mosaic_of
from recipe.next.scenes import WideScene, compose_wide
from recipe.next.views import draw, labels
from recipe.questions import HARD_KINDS, SceneQuestion, ask
from recipe.samples import SCENE_KEY
from recipe.worlds import REPORT, TUNE

log = logging.getLogger(__name__)

SEEDS = {REPORT: 33, TUNE: 35}


@dataclass(frozen=True)
class Probe:
    """One held-out question."""

    number: int
    scene: int
    kind: str
    text: str
    answer: str
    size: str  # of the asked thing: small, sign, large, or absent
    mosaic: str  # rows x columns of tiles
    ratio: str  # width to height of the picture, a range
    question: SceneQuestion


def probes(per_kind: int, seed: int) -> list[Probe]:
    """`per_kind` questions of every kind, at most one of a kind on a scene; scenes in order.

    What is biggest is at most in a quarter of the questions the same thing.
    """
    missing, biggest = dict.fromkeys(HARD_KINDS, per_kind), Counter[str]()
    found: list[Probe] = []
    scene = 0
    while any(missing.values()):
        wide = compose_wide(seed, scene)
        facts, rng = facts_of(labels(wide)[2]), np.random.default_rng([seed, scene, 3])
        for kind in HARD_KINDS:
            question = ask(rng, facts, kind)
            if question is None or not missing[kind]:
                continue
            if kind == "biggest":
                biggest[question.answer] += 1
                if biggest[question.answer] > math.ceil(per_kind / 4):
                    continue
            missing[kind] -= 1
            found.append(_probe(len(found), scene, wide, question))
        scene += 1
    return found


def _probe(number: int, scene: int, wide: WideScene, question: SceneQuestion) -> Probe:
    size = "absent"
    if question.asked >= 0:
        is_sign = wide.scene.things[question.asked].kind == "sign"
        size = "large" if wide.large[question.asked] else "sign" if is_sign else "small"
    mosaic = mosaic_of(wide.height, wide.width)
    ratio = wide.width / wide.height
    ends = (1 / 3, 1 / 2, 1, 2, 3)
    names = ("1:3 to 1:2", "1:2 to 1:1", "1:1 to 2:1", "2:1 to 3:1")
    place = min(3, max(0, int(np.searchsorted(ends, ratio, side="right")) - 1))
    return Probe(
        number,
        scene,
        question.kind,
        question.text,
        question.answer,
        size,
        f"{mosaic.rows}x{mosaic.columns}",
        names[place],
        question,
    )


def write(asked: Sequence[Probe], seed: int, folder: Path) -> None:
    """Write `questions.jsonl` and one PNG per scene, of the size at which nothing is resampled for the tiles."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = PngInfo()
    mark.add_text(SCENE_KEY, "1")
    for scene in sorted({probe.scene for probe in asked}):
        draw(compose_wide(seed, scene)).save(folder / f"{scene:05d}.png", pnginfo=mark)
    lines = [
        {
            "question_id": probe.number + 1,
            "image": f"{probe.scene:05d}.png",
            "text": probe.text,
            "answer": probe.answer,
            "kind": probe.kind,
            "size": probe.size,
            "mosaic": probe.mosaic,
        }
        for probe in asked
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log.info("%d questions about %d pictures in %s", len(asked), len({probe.scene for probe in asked}), folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m recipe.next.heldout", description=__doc__)
    parser.add_argument("--split", choices=(REPORT, TUNE), default=REPORT, help="which scenes (default: report)")
    parser.add_argument("--per-kind", type=int, default=240, help="questions of each kind (default: 240)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures and questions.jsonl")
    options = parser.parse_args()
    if options.per_kind < 1:
        parser.error("--per-kind counts from 1")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seed = SEEDS[options.split]
    write(probes(options.per_kind, seed), seed, options.out)


if __name__ == "__main__":
    main()
