"""A model that answers streams without weights, for tests of `adafv batch`.

`python -m tests.batch_fakes ARGS` is `adafv ARGS` with that model; `FAKE_STEP_S` is what a batch takes, and
`FAKE_NOISE` is what a careless library would print meanwhile.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from adafv.errors import AdaFVError, ImageError
from adafv.images import content_key
from adafv.records import Answer, Failure, Question
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.spent import Flops, TokenCounts
from adafv.streaming.answerer import StreamStats
from adafv.streaming.runs import Asked
from adafv_cli.app import main
from tests.cli_fakes import ANSWER, engine_with, picture

AHEAD = 16
TOKENS = TokenCounts(576, 144, 80, 70, 6, 42, 2, 1)


class FakeAnswers:
    """Reads ahead in a thread, answers batches in the thread that iterates: the library's contract."""

    def __init__(
        self,
        model: FakeBatchModel,
        items: Iterable[Any],
        batch: BatchSettings,
        stop: threading.Event | None,
    ) -> None:
        self.stats = StreamStats(batch_size=8)
        self._model, self._stop = model, stop or threading.Event()
        self._size = 8 if batch.batch_size == "auto" else batch.batch_size
        self._items = items
        self._queue: queue.Queue[Any] = queue.Queue(AHEAD)
        self._images: set[Any] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._feed, daemon=True).start()
        self._answers = self._deliver()

    def __iter__(self) -> FakeAnswers:
        return self

    def __next__(self) -> list[Answer]:
        return next(self._answers)

    def close(self) -> None:
        self._ended.set()

    def _feed(self) -> None:
        last: object = None
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:
            last = error
        self._put(last)

    def _put(self, item: object) -> bool:
        """Whether there was room before the stream ended."""
        while not self._stop.is_set() and not self._ended.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.05)
                return True
        return False

    def _next(self, wait: bool) -> Any:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=0.05 if wait else 0.1)
            except queue.Empty:
                if not wait:
                    break
        return self._queue  # nothing for now

    def _deliver(self) -> Iterator[list[Answer]]:
        try:
            yield from self._batches()
        finally:
            self._ended.set()

    def _batches(self) -> Iterator[list[Answer]]:
        while not self._stop.is_set():
            batch = [self._next(wait=True)]
            while batch[-1] is not None and batch[-1] is not self._queue and len(batch) < self._size:
                batch.append(self._next(wait=False))
            ended = batch[-1] is None or isinstance(batch[-1], BaseException)
            if self._stop.is_set():  # before it ran: only a batch that runs is finished
                return
            work = [item for item in batch if isinstance(item, Asked | list)]
            if work:
                time.sleep(self._model.step_s)
                sys.stdout.write(self._model.noise)
                yield from [self._answer(item) for item in work]
            if isinstance(batch[-1], BaseException):
                raise batch[-1]
            if ended:
                return

    def _answer(self, item: Asked | list[Answer]) -> list[Answer]:
        return item if isinstance(item, list) else [self._one(item.question, run) for run in item.runs]

    def _one(self, item: Question, run: RunSettings) -> Answer:
        self._model.asked.append(item)
        if item.text == "explode":
            raise AdaFVError("the model gave up", "think again")
        fresh = item.image not in self._images
        self._images.add(item.image)
        self.stats.images_encoded += fresh
        self.stats.cache_hits += not fresh
        answer = replace(
            ANSWER, question_id=item.question_id, metadata=dict(item.metadata), prompt=item.text,
            text=self._model.says(item, run), model_id=self._model.model_id,
            image=item.about(_content(item.image)), **run.keeping(item.keep).named,
            tokens=replace(TOKENS, kept=run.keeping(item.keep).budget.tokens(TOKENS.visual)),
            flops=self._model.spends(run),
        )  # fmt: skip
        if answer.image is None or answer.image.key is None:
            error = Failure("ImageError", f"{item.image} does not exist", "check the path")
            return replace(answer, text=None, error=error, tokens=None, latency_s=None, flops=None, memory_bytes=None)
        return answer


@dataclass
class FakeBatchModel:
    """Answers with the question, and remembers what it was asked."""

    model_id: str = "demo"
    is_demo: bool = False
    step_s: float = 0.0
    noise: str = ""
    notes: tuple[str, ...] = ()
    dtype: str = "float32"
    context: int | None = 4096
    asked: list[Question] = field(default_factory=list)
    runs: list[tuple[RunSettings, BatchSettings]] = field(default_factory=list)
    loaded: list[LoadSettings] = field(default_factory=list)

    def check(self, run: RunSettings) -> None:
        pass

    def notes_on(self, run: RunSettings) -> tuple[str, ...]:
        return ()

    def describe(self, run: RunSettings | None = None) -> dict[str, object]:
        return {"model": self.model_id, "devices": "cpu", "dtype": self.dtype}

    def failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        failure = Failure(type(error).__name__, error.what, error.fix)
        return Answer(
            question.question_id, question.text, None, self.model_id, image=question.about(None), error=failure
        )

    def says(self, question: Question, run: RunSettings) -> str:
        return f"re: {question.text}"

    def spends(self, run: RunSettings) -> Flops | None:
        return ANSWER.flops

    def sweep(
        self,
        items: Iterable[Any],
        runs: Sequence[RunSettings],
        batch: BatchSettings,
        stop: threading.Event | None = None,
    ) -> FakeAnswers:
        self.runs += [(run, batch) for run in runs]
        return FakeAnswers(self, items, batch, stop)


def _content(source: str | bytes) -> str | None:
    try:
        return content_key(source)
    except ImageError:
        return None


def loader(model: FakeBatchModel) -> Any:
    def load(settings: LoadSettings) -> FakeBatchModel:
        model.loaded.append(settings)
        model.model_id = settings.model
        return model

    return load


def install(monkeypatch: pytest.MonkeyPatch, model: FakeBatchModel | None = None) -> FakeBatchModel:
    """Put the model where the command imports `load` from."""
    model = model or FakeBatchModel()
    monkeypatch.setitem(sys.modules, "adafv.engine", engine_with(loader(model)))
    for name in ("ADAFV_MODEL", "ADAFV_KEEP", "ADAFV_DEVICE_MAP", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return model


def questions(folder: Path, *lines: object, name: str = "questions.jsonl") -> str:
    """A file of questions: dictionaries become JSON, bytes and strings are written as they are."""
    picture(folder / "a.png")
    picture(folder / "b.png")
    path = folder / name
    path.write_bytes(b"".join(_line(line) for line in lines))
    return str(path)


def _line(line: object) -> bytes:
    if isinstance(line, bytes):
        return line
    return (line if isinstance(line, str) else json.dumps(line)).encode() + b"\n"


def asking(number: int, image: str = "a.png") -> dict[str, object]:
    return {"question_id": number, "image": image, "text": f"question {number}"}


def answers(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def begin() -> None:
    """Be `adafv` with that model."""
    fake = FakeBatchModel(step_s=float(os.environ.get("FAKE_STEP_S", "0")), noise=os.environ.get("FAKE_NOISE", ""))
    sys.modules["adafv.engine"] = engine_with(loader(fake))
    main()


if __name__ == "__main__":
    begin()
