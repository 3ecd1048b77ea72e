"""Write held-out pictures and questions: `python -m recipe.heldout --set plain --split report --out FOLDER`.

The questions are the same that the gates ask. `report` is what published figures rest on; `tune` is for choosing a
setting, from other scenes, so that the choice does not flatter the report.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from recipe.evaluation import Probe, pictures, probes
from recipe.samples import SCENE_KEY
from recipe.worlds import HARD, PLAIN, REPORT, TUNE, held_out

log = logging.getLogger(__name__)


def write(asked: Sequence[Probe], folder: Path) -> None:
    """Write `questions.jsonl` and one PNG per scene, as small as the model sees it: nothing is resampled."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = PngInfo()
    mark.add_text(SCENE_KEY, "1")
    for number, picture in pictures(asked).items():
        picture.save(folder / _file(number), pnginfo=mark)
    lines = [
        {
            "question_id": probe.number + 1,
            "image": _file(probe.scene),
            "text": probe.text,
            "answer": probe.answer,
            "kind": probe.kind,
            "size": probe.size,
        }
        for probe in asked
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log.info("%d questions about %d pictures in %s", len(asked), len({probe.scene for probe in asked}), folder)


def _file(scene: int) -> str:
    return f"{scene:05d}.png"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m recipe.heldout", description=__doc__)
    parser.add_argument("--set", choices=(PLAIN, HARD), default=PLAIN, help="world of the scenes (default: plain)")
    parser.add_argument("--split", choices=(REPORT, TUNE), default=REPORT, help="which scenes (default: report)")
    parser.add_argument("--per-kind", type=int, default=240, help="questions of each kind (default: 240)")
    parser.add_argument("--seed-offset", type=int, default=0, help="another series of the same split (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures and questions.jsonl")
    options = parser.parse_args()
    if options.per_kind < 1 or options.seed_offset < 0:
        parser.error("--per-kind counts from 1, --seed-offset from 0")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write(probes(options.per_kind, held_out(options.set, options.split, options.seed_offset)), options.out)


if __name__ == "__main__":
    main()
