"""Random edits of a batch's input between runs that are killed: what must hold of the output all the same."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Subject = tuple[str, str, str | None]
NAMES = [f"{name}.png" for name in "abcd"]
TEXTS = ["describe it", "what is it?"]


class Editor:
    """A file of questions and its images, changed at random; most lines share one question and have no id."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.folder = random.Random(seed), folder
        self.lines: list[Line] = []
        self._fresh = 0
        for name in NAMES:
            self._paint(name)
        for _ in range(6):
            self.insert()

    def edit(self) -> str:
        """Change something; says what."""
        change: Callable[[], None] = self.random.choice(
            [self.insert, self.append, self.remove, self.swap, self.exchange, self.name, self.unname, self.lose]
        )
        change()
        return change.__name__

    def insert(self) -> None:
        self.lines.insert(self.random.randint(0, len(self.lines)), self._line())

    def append(self) -> None:
        self.lines.append(self._line())

    def remove(self) -> None:
        if len(self.lines) > 2:
            self.lines.pop(self.random.randrange(len(self.lines)))

    def swap(self) -> None:
        first, second = (self.random.randrange(len(self.lines)) for _ in range(2))
        self.lines[first], self.lines[second] = self.lines[second], self.lines[first]

    def exchange(self) -> None:
        """Other bytes under the same name, or two images under each other's."""
        first, second = (self.folder / self.random.choice(NAMES) for _ in range(2))
        if first == second or not first.exists() or not second.exists():
            self._paint(first.name)
        else:
            one, other = first.read_bytes(), second.read_bytes()
            first.write_bytes(other)
            second.write_bytes(one)

    def lose(self) -> None:
        """An image that is there no more."""
        (self.folder / self.random.choice(NAMES)).unlink(missing_ok=True)

    def name(self) -> None:
        self._fresh += 1
        self.random.choice(self.lines)["question_id"] = f"own {self._fresh}"

    def unname(self) -> None:
        self.random.choice(self.lines).pop("question_id", None)

    def write(self) -> Path:
        path = self.folder / "questions.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return path

    def expected(self, *, repeated: bool) -> dict[object, Subject]:
        """What the answer of each line must be about: question, image as answers name it, its key if it is there."""
        found: dict[object, Subject] = {}
        for number, line in enumerate(self.lines, start=1):
            image = line["image"]
            if image.startswith("data:"):
                name, _, content = image.partition(",")
                key = hashlib.sha256(base64.b64decode(content)).hexdigest()
            else:
                name, path = image, self.folder / image
                key = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
            found[identity(line.get("question_id", number), line["text"], repeated=repeated)] = line["text"], name, key
        return found

    def _line(self) -> Line:
        name = self.random.choice(NAMES)
        path = self.folder / name
        if self.random.random() < 0.2 and path.exists():
            name = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        line: Line = {"image": name, "text": self.random.choice(TEXTS) if self.random.random() < 0.2 else TEXTS[0]}
        if self.random.random() < 0.2:
            self._fresh += 1
            line["question_id"] = f"own {self._fresh}"
        return line

    def _paint(self, name: str) -> None:
        """No image needs to be one: nothing here decodes them."""
        self._fresh += 1
        (self.folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + f"{name} {self._fresh}".encode())


def identity(question_id: object, text: str, *, repeated: bool) -> object:
    """By what the lines of a file are told apart."""
    return (question_id, text) if repeated else question_id


def wrong(answers: list[dict[str, Any]], expected: dict[object, Subject], *, repeated: bool) -> list[str]:
    """Answers that are not about the question and image of their line."""
    found = []
    for answer in answers:
        line = expected.get(identity(answer["question_id"], answer["prompt"], repeated=repeated))
        if line is None or answer["error"] is not None:  # its line is gone; it stands for itself
            continue
        text, name, key = line
        image = answer["image"]
        same = image["key"] == key if key is not None else image["name"] == name
        if (answer["prompt"], answer["text"]) != (text, f"{text} {image['key']}") or not same:
            found.append(f"{answer['question_id']!r}: {answer['prompt']!r} of {image}, not {line}")
    return found
