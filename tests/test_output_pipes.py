"""Pipes, links and this process's own descriptors as outputs: written into, never replaced, and not to go on with."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import batch_fakes
from tests.batch_fakes import FakeBatchModel, answers, asking, questions
from tests.cli_fakes import adafv, install, picture
from tests.test_cli_streams import ENVIRONMENT, HANGS_S, ROOT, start
from tests.test_show_cli import QUESTION, Explaining

FAKE = (sys.executable, "-m", "tests.batch_fakes", "batch")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return batch_fakes.install(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return questions(tmp_path, *map(asking, range(3)))


class Pipe:
    """A named pipe, and what came out of it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._content = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self._content = self.path.read_bytes()

    @property
    def content(self) -> bytes:
        self._reader.join(60)
        assert self.path.is_fifo()
        return self._content


def test_reports_go_into_pipes_and_behind_links(tmp_path: Path, model: FakeBatchModel, path: str) -> None:
    pipe = Pipe(tmp_path / "pipe")
    assert adafv("batch", path, "--report", str(pipe.path)).code == 0
    assert json.loads(pipe.content)["outcome"] == "finished"
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    for _ in range(2):
        assert adafv("batch", path, "--report", str(link)).code == 0
        assert link.is_symlink() and json.loads(target.read_text())["outcome"] == "finished"
    link.unlink()
    link.symlink_to(pipe.path)
    through = Pipe(tmp_path / "other")
    link.unlink()
    link.symlink_to(through.path)
    assert adafv("batch", path, "--report", str(link)).code == 0
    assert through.content.startswith(b"{") and link.is_symlink()


def test_pictures_go_into_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Explaining())
    image = picture(tmp_path / "scene.png", scene=True)
    for name, head in (("pipe.svg", b"<?xml"), ("pipe", b"\x89PNG")):
        pipe = Pipe(tmp_path / name)
        assert adafv("show", image, QUESTION, "--dpi", "60", "-o", str(pipe.path)).code == 0
        assert pipe.content.startswith(head)


def test_figures_go_into_pipes(tmp_path: Path, model: FakeBatchModel, path: str) -> None:
    pipe = Pipe(tmp_path / "pipe.pdf")
    assert adafv("sweep", path, "--keep", "25%", "--plot", str(pipe.path)).code == 0
    assert pipe.content.startswith(b"%PDF")


def test_answers_go_into_a_pipe_without_settings_beside_it(tmp_path: Path, model: FakeBatchModel, path: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    pipe = Pipe(folder / "pipe")
    assert adafv("batch", path, "-o", str(pipe.path)).code == 0
    assert len(answers(pipe.content.decode())) == 3
    assert list(folder.iterdir()) == [pipe.path]


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_pipe_is_not_gone_on_with(path: str, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Nobody writes into this pipe: who reads it waits for ever."""
    os.mkfifo(tmp_path / "pipe")
    process = start(*FAKE, path, "-o", str(tmp_path / "pipe"), "--resume", *flags)
    try:
        _, err = process.communicate(timeout=HANGS_S)
    finally:
        process.kill()
    assert process.returncode == 2 and b"no file to go on with" in err


def test_a_pipe_whose_reader_has_left_ends_as_standard_output_does(tmp_path: Path, path: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(*FAKE, path, "-o", f"/dev/fd/{write}", pass_fds=(write,))
    os.close(write)
    _, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 141
    assert "cannot write" not in err.decode() and "Traceback" not in err.decode()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_answers_go_to_what_standard_output_is(path: str, tmp_path: Path, name: str) -> None:
    process = start(*FAKE, path, "-o", name)
    out, _ = process.communicate(timeout=HANGS_S)
    assert (process.returncode, len(answers(out.decode()))) == (0, 3)
    folder = tmp_path / "out"
    folder.mkdir()
    with (folder / "file").open("wb") as file:
        file.write(b'{"kept": true}\n')
        file.flush()
        assert start(*FAKE, path, "-o", name, "-q", stdout=file).wait(HANGS_S) == 0
    assert len(answers((folder / "file").read_text())) == 4
    assert list(folder.iterdir()) == [folder / "file"]


def test_process_substitution(path: str, tmp_path: Path) -> None:
    packed = tmp_path / "x.gz"
    command = f"{' '.join(FAKE)} {path} -q -o >(gzip > {packed}); code=$?; wait $!; exit $code"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(answers(gzip.decompress(packed.read_bytes()).decode())) == 3


def test_a_report_to_standard_output_follows_the_answers(path: str, tmp_path: Path) -> None:
    with (tmp_path / "all").open("wb") as file:
        assert start(*FAKE, path, "--report", "/dev/stdout", stdout=file).wait(HANGS_S) == 0
    lines = (tmp_path / "all").read_text().split("\n", 3)
    assert len(answers("\n".join(lines[:3]))) == 3 and json.loads(lines[3])["outcome"] == "finished"


def test_what_is_not_open_is_refused(tmp_path: Path, model: FakeBatchModel, path: str) -> None:
    with Path(path).open("rb") as reading:
        for number in (reading.fileno(), 9999):
            for flag in ("-o", "--report"):
                done = adafv("batch", path, flag, f"/dev/fd/{number}")
                assert (done.code, model.loaded) == (2, []), done.stderr
                assert f"/dev/fd/{number}" in done.stderr
    assert len(Path(path).read_bytes().splitlines()) == 3


def test_nothing_is_said_of_going_on_with_a_pipe(tmp_path: Path, model: FakeBatchModel) -> None:
    """`--resume` refuses a pipe, so that no command with it is advised."""
    path = questions(tmp_path, asking(1), asking(2, "gone.png"))
    pipe = Pipe(tmp_path / "pipe")
    done = adafv("batch", path, "-o", str(pipe.path))
    assert (done.code, len(answers(pipe.content.decode()))) == (1, 2)
    assert "1 of 2 lines failed" in done.stderr and "--resume" not in done.stderr


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path, model: FakeBatchModel) -> None:
    """As with `adafv batch ... -o /dev/stdout | head -1`: what standard output alone would end with."""
    path = questions(tmp_path, *map(asking, range(100)))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def read_a_line() -> None:
        with pipe.open("rb") as stream:
            stream.readline()

    reader = threading.Thread(target=read_a_line)
    reader.start()
    model.step_s = 0.1  # so that most is written once it is gone
    went = adafv("batch", path, "-o", str(pipe), "--batch-size", "4")
    reader.join(60)
    assert went.code == 141 and "cannot write" not in went.stderr
