"""Images that come inside the lines are held in bounded memory."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest

from adafv_cli.work.source import InFlight
from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import adafv


class Watched(threading.Condition):
    """Says when somebody waits for it, having found nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_for.set()
        return super().wait(timeout)


def test_a_line_waits_for_room() -> None:
    held, added = InFlight(threading.Event(), 100), []
    held._changed = changed = Watched()

    def read() -> None:
        for size in (0, 60, 30, 0, 500, 10):
            held.add(size)
            added.append(size)

    reader = threading.Thread(target=read)
    reader.start()
    for there in ([0, 60, 30, 0], [0, 60, 30, 0], [0, 60, 30, 0], [0, 60, 30, 0, 500], [0, 60, 30, 0, 500]):
        assert changed.waited_for.wait(600)
        assert added == there
        with changed:  # who waits looks again, but not before this is done
            changed.waited_for.clear()
            held.done()
    reader.join(600)
    assert added == [0, 60, 30, 0, 500, 10]


def test_what_just_fits_does_not_wait() -> None:
    class Refusing(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            raise TimeoutError

    held = InFlight(threading.Event(), 100)
    held._changed = Refusing()
    held.add(60)
    held.add(40)
    held.add(0)
    with pytest.raises(TimeoutError):
        held.add(1)


def test_a_stopped_run_does_not_wait() -> None:
    stop = threading.Event()
    held = InFlight(stop, 1)
    held.add(1)
    stop.set()
    held.add(1)


def test_lines_larger_than_the_limit_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeBatchModel())
    monkeypatch.setattr(InFlight.__init__, "__defaults__", (10,))
    content = base64.b64encode(Path(questions(tmp_path)).with_name("a.png").read_bytes()).decode()
    lines = [asking(number, f"data:image/png;base64,{content}") for number in range(20)]
    done = adafv("batch", questions(tmp_path, *lines))
    assert (done.code, len(answers(done.stdout))) == (0, 20)
