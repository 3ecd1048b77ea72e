"""What a command may write over: its own results and what is forced, never its input, a pipe or a stranger's file.

Pipes and links in a temporary folder stand in for devices: a mistake must not break the machine that tests it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from adafv_cli.app import run
from adafv_cli.console import Streams
from tests import batch_fakes
from tests.batch_fakes import FakeBatchModel, answers, asking, questions
from tests.cli_fakes import FakeStream, Result, adafv, install, picture
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
    done = adafv("batch", path, "-o", str(pipe.path), "--resume")
    assert done.code == 2 and "no file to go on with" in done.stderr


def test_a_pipe_whose_reader_leaves_is_an_error(tmp_path: Path, path: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(*FAKE, path, "-o", f"/dev/fd/{write}", pass_fds=(write,))
    os.close(write)
    _, err = process.communicate(timeout=HANGS_S)
    assert process.returncode == 1
    assert f"cannot write to /dev/fd/{write}: Broken pipe" in err.decode() and "Traceback" not in err.decode()


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


STRANGE = [b"precious", b"{}", b'{"adafv": "0.1.0"}', b'{"adafv": "0.1.0", "command": "batch"}', b"\x89PNG\r\n"]


@pytest.mark.parametrize("content", STRANGE)
def test_a_strangers_file_is_replaced_by_force_alone(
    tmp_path: Path, model: FakeBatchModel, path: str, content: bytes
) -> None:
    for flag, name in (("--report", "r.json"), ("--plot", "r.png")):
        target = tmp_path / name
        target.write_bytes(content)
        done = adafv("sweep", path, "--keep", "25%", flag, str(target))
        assert (done.code, model.loaded) == (2, [])
        assert f"{flag}: {target} exists, and adafv did not write it" in done.stderr and "--force" in done.stderr
        assert target.read_bytes() == content
        for force in (("--force",), ()):  # and what was written by force is ours from then on
            assert adafv("sweep", path, "--keep", "25%", flag, str(target), *force).code == 0
        model.loaded.clear()


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf"])
def test_a_picture_is_replaced_by_another_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model = Explaining()
    install(monkeypatch, model)
    image, out = picture(tmp_path / "scene.png", scene=True), tmp_path / name
    command = ("show", image, QUESTION, "--dpi", "60", "-o", str(out))
    out.touch(0o640)  # with nothing in it to lose
    assert adafv(*command).code == 0
    assert out.stat().st_mode & 0o777 == 0o640
    first = out.read_bytes()
    assert adafv(*command).code == 0
    assert out.read_bytes() == first
    out.write_bytes(Path(image).read_bytes())
    asked = len(model.asked)
    done = adafv(*command)
    assert done.code == 2 and "adafv did not write it" in done.stderr and len(model.asked) == asked
    assert adafv(*command, "--force").code == 0
    assert out.read_bytes() == first


def as_it_is(path: Path) -> Path:
    return path


def linked(path: Path) -> Path:
    path.with_name("linked").symlink_to(path)
    return path.with_name("linked")


def hard(path: Path) -> Path:
    path.with_name("hard").hardlink_to(path)
    return path.with_name("hard")


@pytest.mark.parametrize("called", [as_it_is, linked, hard])
@pytest.mark.parametrize("command", ["batch", "sweep"])
def test_the_input_is_never_the_output(
    tmp_path: Path, model: FakeBatchModel, path: str, command: str, called: Callable[[Path], Path]
) -> None:
    before = Path(path).read_bytes()
    name = str(called(Path(path)))
    for flag in ("-o", "--report", *(["--plot"] if command == "sweep" else [])):
        done = adafv(command, path, flag, name, "--force")
        assert (done.code, model.loaded) == (2, []) and f"{flag}: {name} is the input" in done.stderr
        with Path(path).open("rb") as file:
            done = behind(file, command, "-", "--image-folder", str(tmp_path), flag, name, "--force")
        assert (done.code, model.loaded) == (2, []) and f"{flag}: {name} is the input" in done.stderr
    assert Path(path).read_bytes() == before


def behind(file: BinaryIO, *args: str) -> Result:
    """Run a command with standard input redirected from a file."""
    out, err = FakeStream(), FakeStream()
    return Result(run(args, Streams(io.TextIOWrapper(file), out, err)), out.written, err.written)


def test_the_input_may_be_where_settings_or_a_copy_would_go(tmp_path: Path, model: FakeBatchModel, path: str) -> None:
    for name in ("x.jsonl.settings.json", ".x.jsonl.compacting"):
        given = tmp_path / name
        given.write_bytes(Path(path).read_bytes())
        before = given.read_bytes()
        for flags in ((), ("--force",), ("--resume",)):
            done = adafv("batch", str(given), "-o", str(tmp_path / "x.jsonl"), *flags)
            assert (done.code, model.loaded) == (2, []) and "is the input" in done.stderr
        assert given.read_bytes() == before and not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize("content", [b"mine", b"{}", b'{"adafv": "1", "command": ["batch"]}', b"[" * 100_000])
def test_settings_of_somebody_else_stay(tmp_path: Path, model: FakeBatchModel, path: str, content: bytes) -> None:
    settings, out = tmp_path / "x.jsonl.settings.json", tmp_path / "x.jsonl"
    settings.write_bytes(content)
    for flags in ((), ("--force",), ("--resume",)):
        done = adafv("batch", path, "-o", str(out), *flags)
        assert (done.code, model.loaded) == (2, [])
        assert f"its settings go to {settings}, which exists, and adafv did not write it" in done.stderr
    assert settings.read_bytes() == content and not out.exists()


def test_the_image_behind_standard_input_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Explaining())
    image = Path(picture(tmp_path / "scene.png", scene=True))
    before = image.read_bytes()
    with image.open("rb") as file:
        done = behind(file, "show", "-", QUESTION, "-o", str(image), "--force")
    assert done.code == 2 and "is the input" in done.stderr
    assert image.read_bytes() == before


def test_standard_output_is_not_appended_to_the_input(tmp_path: Path, path: str) -> None:
    before = Path(path).read_bytes()
    for given in (("-", "--image-folder", str(tmp_path)), (path,), (path, "-o", "/dev/stdout")):
        with Path(path).open("ab") as out, Path(path).open("rb") as stdin:
            process = start(*FAKE, *given, stdin=stdin, stdout=out)
            _, err = process.communicate(timeout=HANGS_S)
        assert process.returncode == 2 and b"the input" in err
    assert Path(path).read_bytes() == before


def test_a_report_does_not_replace_what_standard_output_goes_to(tmp_path: Path, path: str) -> None:
    for flag in ("-o", "--report"):
        with (tmp_path / "all").open("wb") as out:
            process = start(*FAKE, path, flag, str(tmp_path / "all"), stdout=out)
            _, err = process.communicate(timeout=HANGS_S)
        assert process.returncode == 2 and b"is what standard output goes to" in err


@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
def test_an_output_that_goes_during_the_run_is_an_error(
    tmp_path: Path, model: FakeBatchModel, path: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    out = tmp_path / "out.jsonl"

    def says(question: object, settings: object) -> str:
        if how == "moved":
            out.replace(tmp_path / "elsewhere")
        else:
            out.unlink()
        if how == "replaced":
            out.write_bytes(b"")
        monkeypatch.setattr(model, "says", lambda *_: "later")
        return "gone"

    monkeypatch.setattr(model, "says", says)
    done = adafv("batch", path, "-o", str(out), "--batch-size", "1")
    assert done.code == 1
    assert f"adafv: -o: {out} was removed or replaced during the run\n" in done.stderr


def test_a_file_that_is_named_as_a_copy_is_made_is_not_followed(
    tmp_path: Path, model: FakeBatchModel, path: str
) -> None:
    """A link to something precious, laid where a resumed run copies its good lines to."""
    precious, out = tmp_path / "precious", tmp_path / "out.jsonl"
    precious.write_text("precious")
    lines = questions(tmp_path, asking(1), asking(2, "gone.png"))
    adafv("batch", lines, "-o", str(out))
    (tmp_path / ".out.jsonl.compacting").symlink_to(precious)
    assert adafv("batch", lines, "-o", str(out), "--resume").code == 1
    assert precious.read_text() == "precious" and out.is_file() and not out.is_symlink()
