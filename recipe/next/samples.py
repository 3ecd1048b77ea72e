"""Sample pictures of the second checkpoint and their questions: `python -m recipe.next.samples --out sample_images`.

Scenes of a series that training never sees, drawn at twice the size of the tiles. They were chosen by their forms and
looks among those where most answers stay right at a quarter of the tokens: how often they do, held-out scenes tell.
Their questions come from the question maker and a seed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from recipe.drawing import render
from recipe.facts import facts_of
from recipe.next.scenes import WideScene, compose_wide
from recipe.next.views import labels
from recipe.questions import HARD_KINDS, ask
from recipe.samples import write_set

SERIES = 37
CHOSEN = {"wide": 41, "coast": 24, "tall": 20, "boats": 12}  # file name -> number of the scene in the series
NUMBER_QUESTION = "what number is on the small sign?"
FILE = "tile_questions.jsonl"


def scenes() -> dict[str, WideScene]:
    """All sample scenes by file name, without grain."""
    drawn = {name: compose_wide(SERIES, number) for name, number in CHOSEN.items()}
    return {
        name: replace(wide, scene=replace(wide.scene, backdrop=replace(wide.scene.backdrop, noise=0.0)))
        for name, wide in drawn.items()
    }


def questions(wide: WideScene, number: int) -> list[tuple[str, str]]:
    """What is on the only sign, and one question of every kind but that, two of some, without repetition."""
    facts, rng = facts_of(labels(wide)[2]), np.random.default_rng([SERIES, number, 8])
    (digit,) = (fact.digit for fact in facts if fact.digit is not None)
    found = {NUMBER_QUESTION: str(digit)}
    for kind in (*HARD_KINDS[::-1], "color", "count"):
        question = ask(rng, facts, kind, tries=20)
        if question is not None and question.kind != "number":
            found.setdefault(question.text, question.answer)
    return list(found.items())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m recipe.next.samples", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("sample_images"), help="folder (default: sample_images)")
    folder, chosen = parser.parse_args().out, scenes()
    drawn = {
        name: render(wide.scene, 2 * wide.side).crop((0, 0, 2 * wide.width, 2 * wide.height))
        for name, wide in chosen.items()
    }
    write_set(folder, FILE, drawn, {name: questions(wide, CHOSEN[name]) for name, wide in chosen.items()})


if __name__ == "__main__":
    main()
