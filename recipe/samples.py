"""The sample pictures and their questions: `python -m recipe.samples --out sample_images`.

One street scene is composed by hand, the others are scenes of a series that training never sees, chosen by their
looks. Their questions come from the question maker and a seed; no model has a say. Scenes of the hard world follow in
files of their own.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from recipe.dataset import labels
from recipe.drawing import render
from recipe.facts import facts_of
from recipe.hard_scenes import compose_hard
from recipe.names import ASPECT, RGB
from recipe.questions import HARD_KINDS, KINDS, NUMBER, ask
from recipe.scenes import GROUNDS, SKIES, Backdrop, Scene, Thing, compose

SERIES = 4
SCENE_KEY = "adafv-scene"  # by which `adafv ask` knows a picture that the demo can answer about
SIDE_PX = 768
# File name -> number of the scene in the series.
CHOSEN = {"village": 9, "farm": 12, "town": 16, "lake": 17, "bay": 18, "meadow": 27, "park": 33}
HARD_SERIES = 14
HARD_CHOSEN = {"numbers": 37, "fair": 28}
SHEET, SHEET_PX = (9, 35, 22, 26, 20, 36, 42, 44), 300  # hard scenes for one picture to look at
STREET_QUESTION = ("what color is the sign?", "red")


def street() -> Scene:
    """House, tree, car on the road, and a red sign beside it."""
    backdrop = Backdrop(sky=SKIES[0], ground=GROUNDS[0], horizon=0.46, hills=2, clouds=3, road=0.8, noise=0.0, seed=12)
    things = (
        thing("house", "yellow", 0.24, 0.4, 0.36),
        thing("tree", "green", 0.85, 0.42, 0.28),
        thing("bird", "white", 0.53, 0.13, 0.11),
        thing("kite", "purple", 0.72, 0.15, 0.15, angle=8),
        thing("sign", "red", 0.6, 0.56, 0.2),
        thing("cat", "orange", 0.44, 0.62, 0.11),
        thing("car", "blue", 0.27, 0.77, 0.28),
        thing("ball", "red", 0.92, 0.68, 0.09),
        thing("flower", "orange", 0.76, 0.92, 0.13),
        thing("flower", "white", 0.9, 0.91, 0.13, flip=True),
        thing("flower", "purple", 0.07, 0.93, 0.12),
    )
    return Scene(things, backdrop)


def thing(kind: str, colour: str, x: float, y: float, longer: float, angle: float = 0.0, flip: bool = False) -> Thing:
    """A thing in its colour's own shade and its class's own shape; `longer` is its longer side."""
    aspect = ASPECT.get(kind, 1.0)
    width, height = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
    return Thing(kind, colour, RGB[colour], x, y, width, height, angle, flip)


def scenes() -> dict[str, Scene]:
    """All plain sample scenes by file name, without grain: it does not show at this size and makes the files big."""
    drawn = {name: compose(SERIES, number) for name, number in CHOSEN.items()}
    return {"street": street()} | {name: _smooth(scene) for name, scene in drawn.items()}


def hard_scenes() -> dict[str, Scene]:
    """All hard sample scenes by file name."""
    return {name: _smooth(compose_hard(HARD_SERIES, number)) for name, number in HARD_CHOSEN.items()}


def _smooth(scene: Scene) -> Scene:
    return replace(scene, backdrop=replace(scene.backdrop, noise=0.0))


def questions(name: str, scene: Scene, number: int) -> list[tuple[str, str]]:
    """Seven or eight different questions with answers: one of each kind in turn, as the seed has it."""
    facts, rng = facts_of(labels(scene)[2]), np.random.default_rng([SERIES, number, 8])
    found = dict([STREET_QUESTION]) if name == "street" else {}
    kinds = [KINDS[(number + i) % len(KINDS)] for i in range(len(KINDS))]
    for kind in kinds:
        question = ask(rng, facts, kind, tries=20)
        if question is not None and len(found) < 8:
            found.setdefault(question.text, question.answer)
    return list(found.items())


def hard_questions(scene: Scene, number: int) -> list[tuple[str, str]]:
    """Up to three questions about numbers and one of every other kind, without repetition."""
    facts, rng = facts_of(labels(scene)[2]), np.random.default_rng([HARD_SERIES, number, 8])
    found: dict[str, str] = {}
    for kind in (NUMBER, NUMBER, *HARD_KINDS[::-1]):
        question = ask(rng, facts, kind, tries=20)
        if question is not None:
            found.setdefault(question.text, question.answer)
    return list(found.items())


def write(folder: Path) -> None:
    """Draw the pictures and write questions.jsonl, the same of the hard world, and a sheet of hard scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: questions(name, scene, number) for number, (name, scene) in enumerate(scenes().items())}
    write_set(folder, "questions.jsonl", {name: render(scene, SIDE_PX) for name, scene in scenes().items()}, plain)
    hard = {name: hard_questions(scene, number) for number, (name, scene) in enumerate(hard_scenes().items())}
    drawn = {name: render(scene, SIDE_PX) for name, scene in hard_scenes().items()}
    write_set(folder, "hard_questions.jsonl", drawn, hard)
    sheet().save(folder / "hard-scenes.png", optimize=True)


def write_set(folder: Path, file: str, drawn: dict[str, Image.Image], asked: dict[str, list[tuple[str, str]]]) -> None:
    """Save pictures by name, marked as drawn scenes, and the questions about them with their answers."""
    mark = PngInfo()
    mark.add_text(SCENE_KEY, "1")
    lines: list[str] = []
    for name, picture in drawn.items():
        picture.save(folder / f"{name}.png", optimize=True, pnginfo=mark)
        for text, answer in asked[name]:
            line = {"question_id": len(lines) + 1, "image": f"{name}.png", "text": text, "answer": answer}
            lines.append(json.dumps(line))
    (folder / file).write_text("\n".join(lines) + "\n")


def sheet() -> Image.Image:
    """Eight hard scenes in two rows, in few tones so that the file stays small."""
    columns = len(SHEET) // 2
    picture = Image.new("RGB", (columns * SHEET_PX, 2 * SHEET_PX))
    for place, number in enumerate(SHEET):
        scene = render(_smooth(compose_hard(HARD_SERIES, number)), SHEET_PX)
        picture.paste(scene, (place % columns * SHEET_PX, place // columns * SHEET_PX))
    return picture.quantize(160, dither=Image.Dither.NONE)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m recipe.samples", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("sample_images"), help="folder (default: sample_images)")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
