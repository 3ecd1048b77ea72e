"""What a command may write over: its own results and what is forced, never its input, a pipe or a stranger's file.

Pipes and links in a temporary folder stand in for devices: a mistake must not break the machine that tests it.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from adafv_cli.app import run
from adafv_cli.console import Streams
from tests import batch_fakes
from tests.batch_fakes import FakeBatchModel, answers, asking, questions
from tests.cli_fakes import FakeStream, Result, adafv, install, picture
from tests.test_cli_streams import HANGS_S, start
from tests.test_show_cli import QUESTION, Explaining

FAKE = (sys.executable, "-m", "tests.batch_fakes", "batch")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return batch_fakes.install(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return questions(tmp_path, *map(asking, range(3)))


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
    out, report = tmp_path / "out.jsonl", tmp_path / "report.json"

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
    done = adafv("batch", path, "-o", str(out), "--batch-size", "1", "--report", str(report))
    assert done.code == 1
    what = f"-o: {out} was removed or replaced during the run"
    assert f"adafv: {what}\n" in done.stderr
    assert json.loads(report.read_text())["outcome"].startswith(f"failed: {what}")


@pytest.mark.parametrize("content", [b"precious", b"{", b'{"question_id"', b'{"question_id": \0\0', b"\0\0"])
@pytest.mark.parametrize("command", ["batch", "sweep"])
def test_a_line_without_an_end_may_be_somebody_elses(
    tmp_path: Path, model: FakeBatchModel, path: str, command: str, content: bytes
) -> None:
    """A kill leaves the beginning of an answer, to be redone; any other text is not ours to drop."""
    out = tmp_path / "out.jsonl"
    out.write_bytes(content)
    done = adafv(command, path, "-o", str(out), "--resume")
    if content == b"precious":
        assert (done.code, out.read_bytes(), model.loaded) == (4, content, [])
        assert f"line 1 of {out} is no answer of `adafv {command}`" in done.stderr
    else:
        assert done.code == 0 and len(answers(out.read_text())) >= 3


def test_force_leaves_no_other_answers_where_there_is_nothing_to_ask(
    tmp_path: Path, model: FakeBatchModel, path: str
) -> None:
    """All three lines are about one image, and so in one shard."""
    out = tmp_path / "out.jsonl"
    held = []
    for shard in ("1/2", "2/2"):
        out.write_text("old\n")
        assert adafv("batch", path, "-o", str(out), "--force", "--shard", shard).code == 0
        held.append(len(answers(out.read_text())))
    assert sorted(held) == [0, 3]


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
