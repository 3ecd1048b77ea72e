"""A model that needs no torch, and a way to run the command line in this process with streams of our own.

`python -m tests.cli_fakes ARGS` is `adafv ARGS` with that model, for tests that need a process.
"""

from __future__ import annotations

import io
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from adafv.records import Answer, Comparison, Failure
from adafv.settings import LoadSettings, RunSettings
from adafv.spent import Flops, Latency, MemoryBytes, TokenCounts
from adafv_cli.app import main, run
from adafv_cli.console import Streams

ANSWER = Answer(
    question_id=0,
    prompt="what color is the sign?",
    text="red",
    model_id="demo",
    finish_reason="stop",
    pruner="adafv",
    keep="25%",
    tokens=TokenCounts(576, 144, 80, 70, 6, 42, 2, 1),
    latency_s=Latency(0.003, 0.0182, 0.0004, 0.0006, 0.012, 0.0312, 0.0041, 0.0041, 0.0383),
    flops=Flops(349_000_000_000, 24_200_000_000, 9_000_000, 2_590_000_000_000, 13_000_000_000,
                2_976_209_000_000, 8_640_000_000_000),
    memory_bytes=MemoryBytes(98_566_144, 325_058_560, None),
)  # fmt: skip
COMPARISON = Comparison("red", True, 0.1, 0.12, 0.1 / 0.0312, 0.12 / 0.0383)
FAILURE = Failure("InputError", "saliency has NaN", "look at the checkpoint")


@dataclass
class FakeModel:
    """Answers with what it was given; remembers what it was asked."""

    answers: Sequence[Answer | BaseException] = (ANSWER,)
    is_demo: bool = True
    model_id: str = "demo"
    noise: str = ""
    notes: tuple[str, ...] = ()
    context: int | None = 4096
    asked: list[tuple[Any, list[str], RunSettings]] = field(default_factory=list)
    loaded: list[LoadSettings] = field(default_factory=list)

    def check(self, run: RunSettings) -> None:
        pass

    def notes_on(self, run: RunSettings) -> tuple[str, ...]:
        return ()

    def describe(self, run: RunSettings | None = None) -> dict[str, object]:
        return {"model": self.model_id, "devices": "cpu", "dtype": "float32"}

    def answer(self, image: Any, questions: Sequence[str], run: RunSettings) -> Iterator[Answer]:
        self.asked.append((image, list(questions), run))
        for number, question in enumerate(questions):
            sys.stdout.write(self.noise)  # as a careless library would
            answer = self.answers[min(number, len(self.answers) - 1)]
            if isinstance(answer, BaseException):
                raise answer
            yield replace(answer, question_id=number, prompt=question)


def engine_with(load: Callable[[LoadSettings], FakeModel]) -> types.ModuleType:
    engine = types.ModuleType("adafv.engine")
    engine.load = load  # type: ignore[attr-defined]
    return engine


def install(monkeypatch: pytest.MonkeyPatch, model: FakeModel, failure: BaseException | None = None) -> FakeModel:
    """Put `model` where the command imports `load` from; `failure` is raised instead of loading."""

    def load(settings: LoadSettings) -> FakeModel:
        model.loaded.append(settings)
        if failure is not None:
            raise failure
        return model

    monkeypatch.setitem(sys.modules, "adafv.engine", engine_with(load))
    for name in ("ADAFV_MODEL", "ADAFV_KEEP", "ADAFV_DEVICE_MAP", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return model


class FakeStream(io.TextIOWrapper):
    """A text stream in memory that says whether it is a terminal."""

    def __init__(self, content: bytes = b"", tty: bool = False, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(content), encoding=encoding, write_through=True, newline="\n")
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    @property
    def written(self) -> str:
        buffer = self.buffer
        return buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined, no-any-return]


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str


def adafv(
    *args: str,
    stdin: bytes = b"",
    stdin_tty: bool = False,
    tty: bool = False,
    stdout_tty: bool = False,
    encoding: str = "utf-8",
) -> Result:
    """Run `adafv ARGS` in this process."""
    out, err = FakeStream(tty=stdout_tty, encoding=encoding), FakeStream(tty=tty, encoding=encoding)
    code = run(args, Streams(FakeStream(stdin, stdin_tty), out, err))
    return Result(code, out.written, err.written)


def picture(path: Path, scene: bool = False) -> str:
    """A small PNG; `scene` marks it as one that the demo's renderer drew."""
    info = PngInfo()
    if scene:
        info.add_text("adafv-scene", "1")
    Image.new("RGB", (24, 16), "red").save(path, pnginfo=info)
    return str(path)


def _load_slowly(settings: LoadSettings) -> FakeModel:
    sys.stdout.write("a library prints while it loads\n")
    sys.stdout.flush()
    time.sleep(float(os.environ.get("FAKE_LOAD_S", "0")))
    return FakeModel([replace(ANSWER, text=os.environ.get("FAKE_TEXT", "red"))])


if __name__ == "__main__":
    sys.modules["adafv.engine"] = engine_with(_load_slowly)
    main()
