"""Good lines and lines of every kind that ever hurt a run, mixed at random, through the real engine.

python -m tests.poison_lines 20000     the bundled checkpoint, as a process; prints what came of it
"""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parent.parent
GOOD = ["a.png", "b.png", "c.png"]
QUESTIONS = ["what color is the sign?", "is there a tree?", "how many houses are there?"]


class Poisoner:
    """Makes lines; `make` says for each whether it must be answered."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.folder = random.Random(seed), folder
        for name, color in zip(GOOD, ("red", "green", "blue"), strict=True):
            Image.new("RGB", (64, 48), color).save(folder / name)
        whole = (folder / "a.png").read_bytes()
        (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
        (folder / "empty.png").touch()
        (folder / "text.png").write_text("no image")
        (folder / "folder.png").mkdir()
        Image.new("RGB", (6_000, 1)).save(folder / "strip.png")
        Image.new("1", (1, 1)).save(folder / "dot.png")
        bomb = whole[:16] + (60_000).to_bytes(4, "big") * 2 + whole[24:]
        (folder / "bomb.png").write_bytes(bomb)
        self._uri = "data:image/png;base64," + base64.b64encode(whole).decode()

    def make(self, number: int) -> tuple[bytes, bool | None]:
        """One line, and whether it must be answered: `None` where either will do."""
        good = {"question_id": number, "image": self.random.choice(GOOD), "text": self.random.choice(QUESTIONS)}
        if self.random.random() < 0.5:
            return _bytes(good), True
        kinds: list[Callable[[dict[str, Any]], tuple[bytes, bool | None]]] = [
            self._nested, self._broken, self._odd_text, self._odd_image, self._odd_id, self._odd_metadata,
        ]  # fmt: skip
        return self.random.choice(kinds)(good)

    def _nested(self, line: dict[str, Any]) -> tuple[bytes, bool | None]:
        depth = self.random.choice([600, 690, 710, 900, 950, *range(970, 1_000), 3_000, 100_000])
        opened, closed = self.random.choice([("[", "]"), ('{"x": ', "}")])
        value = opened * depth + "1" * (opened != "[") + closed * depth
        key = self.random.choice(["kind", "question_id", "text", "image", "metadata"])
        rest = json.dumps({name: one for name, one in line.items() if name != key})[:-1]
        return f'{rest}, "{key}": {value}}}\n'.encode(), (depth <= 690 if key in ("kind", "metadata") else False)

    def _broken(self, line: dict[str, Any]) -> tuple[bytes, bool | None]:
        whole = json.dumps(line).encode()
        cut = whole[: self.random.randint(1, len(whole) - 1)]
        return self.random.choice([cut, b"\xff\xfe" + whole, b"[1]", b"NaN", b'"text"', whole + whole]) + b"\n", False

    def _odd_text(self, line: dict[str, Any]) -> tuple[bytes, bool | None]:
        bad = [
            "",
            " \n",
            None,
            7,
            ["what?"],
            "half \ud800",
            "<image>",
            "a <image> in it",
            "word " * 5_000,
        ]
        fine = ["3 < 5", "3 > 5 & 'x' \"y\"", "{{ 1 / 0 }} {% for %}", "\x1b[31mred\x07", "\u202egnis", "</s><s>[INST]",
                "<|im_start|>", "was ist gr\u00fcn? \u7eff \U0001f600", "\x00", "<pad><unk>", "a" * 100,
                "?" * 100_000]  # fmt: skip
        if self.random.random() < 0.5:
            return _bytes(line | {"text": self.random.choice(bad)}), False
        return _bytes(line | {"text": self.random.choice(fine)}), None

    def _odd_image(self, line: dict[str, Any]) -> tuple[bytes, bool | None]:
        bad = ["gone.png", "cut.png", "empty.png", "text.png", "folder.png", "bomb.png", ".", "", None, 3, "x" * 5_000,
               "a.png\x00", "http://x.org/a.png", "data:,", "data:image/png;base64,!", "data:image/png;base64,AAAA",
               "/dev/null", "/dev/zero", "a.png\ud800"]  # fmt: skip
        if self.random.random() < 0.7:
            return _bytes(line | {"image": self.random.choice(bad)}), False
        return _bytes(line | {"image": self.random.choice([self._uri, "./a.png", "dot.png", "strip.png"])}), None

    def _odd_id(self, line: dict[str, Any]) -> tuple[bytes, bool | None]:
        number = line["question_id"]
        if self.random.random() < 0.5:
            return _bytes(line | {"question_id": f"{number} \ud800 \x1b[2J"}), True
        return _bytes(line | {"question_id": self.random.choice([[number], {"x": number}])}), False

    def _odd_metadata(self, line: dict[str, Any]) -> tuple[bytes, bool | None]:
        if self.random.random() < 0.3:
            return json.dumps(line)[:-1].encode() + b', "much": 1e999}\n', False
        fine = [{"metadata": [1]}, {"": ""}, {"error": "x", "text2": "\ud800"}, {"answer": ["x", {"answer": None}]},
                {"big": 10**300}, {"kind": "\x1b]52;c;x\x07"}, {"label": True}, {"answers": [[["x"]]]}]  # fmt: skip
        return _bytes(line | self.random.choice(fine)), True

    def write(self, lines: int) -> tuple[Path, dict[int, bool | None]]:
        """A file of lines, and by their numbers which must be answered."""
        path, expected = self.folder / "questions.jsonl", {}
        with path.open("wb") as stream:
            for number in range(1, lines + 1):
                raw, expected[number] = self.make(number)
                stream.write(raw)
        return path, expected


def check(out: Path, expected: dict[int, bool | None]) -> Counter[str]:
    """Count answers and errors of a run; raises `AssertionError` where a line is lost, or hurt by another."""
    found: Counter[str] = Counter()
    with out.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            answer = json.loads(raw)
            error = answer["error"]
            found[error["type"] if error else "answered"] += 1
            wanted = expected[number]
            if wanted is not None and wanted != (error is None):
                raise AssertionError(f"line {number}, {str(answer)[:300]}: {str(error)[:300]}")
    if sum(found.values()) != len(expected):
        raise AssertionError(f"{len(expected)} lines in, {sum(found.values())} out")
    return found


def _bytes(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


if __name__ == "__main__":
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        source, wanted = Poisoner(folder, seed=count).write(count)
        answered = folder / "answers.jsonl"
        args = [sys.executable, "-m", "adafv_cli", "batch", str(source), "-o", str(answered), "--max-new-tokens", "4"]
        done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
        took = f"exit {done.returncode} in {time.monotonic() - began:.0f} s: "
        sys.stdout.write(f"{done.stderr[-3_000:]}{took}{dict(check(answered, wanted))}\n")
