"""Bad input: the exit code, a message with the value and the fix, and nothing on stdout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from adafv.errors import CheckpointError, DeviceError, InputError
from tests.cli_fakes import FakeModel, adafv, install, picture


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's, without torch."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    return install(monkeypatch, FakeModel())


@pytest.fixture
def image(tmp_path: Path) -> str:
    return picture(tmp_path / "a.png", scene=True)


def refused(code: int, parts: tuple[str, ...], *args: str, **how: object) -> str:
    done = adafv(*args, **how)  # type: ignore[arg-type]
    assert (done.code, done.stdout) == (code, "")
    for part in parts:
        assert part in done.stderr, done.stderr
    first, _, fix = done.stderr.rstrip("\n").partition("\n")
    assert first.startswith("adafv: ")
    assert fix.startswith("  ") and "\n" not in fix
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "flags,parts",
    [
        (("--keep", "0"), ("--keep: 0 keeps no visual token", "25%")),
        (("--keep", "-5"), ("--keep", "-5", "128")),
        (("--keep", "abc"), ("--keep: 'abc'", "25%")),
        (("--keep", "200%"), ("--keep: 200%", "25%")),
        (("--pruner", "salient"), ("--pruner: 'salient'", "did you mean saliency?")),
        (("--positions", "old"), ("--positions: 'old'", "compact, original")),
        (("--dtype", "int3"), ("--dtype: 'int3'", "bfloat16")),
        (("--quantize", "int2"), ("--quantize: 'int2'", "int4")),
        (("--attention", "slow"), ("--attention: 'slow'", "sdpa")),
        (("--max-new-tokens", "0"), ("--max-new-tokens: 0", "1 or more")),
        (("--max-new-tokens", "ten"), ("--max-new-tokens", "'ten'", "adafv ask --help")),
        (("--temperature", "-1"), ("--temperature: -1", "greedy")),
        (("--temperature", "nan"), ("--temperature: nan", "greedy")),
        (("--top-p", "2"), ("--top-p: 2", "use 1")),
        (("--device-map", "cudo"), ("--device-map: 'cudo'", "auto, cpu, cuda")),
        (("--device-map", "gone.json"), ("gone.json", "no such file", "JSON file")),
        (("--max-memory", "lots"), ("--max-memory", "'lots'", "0=20GiB")),
        (("--max-memory", "0=lots"), ("'lots'", "device 0", "0=20GiB")),
        (("--max-memory", "{"), ("--max-memory", "not JSON", "0=20GiB")),
        (("--keap", "3"), ("--keap", "did you mean --keep?")),
        (("-5 or 5?",), ("-5", 'behind a --: adafv ask IMAGE -- "-5 or 5?"')),
        (("-q", "-v"), ("-q and -v", "one of the two")),
        (("--system", "a\udc80"), ("--system: half a surrogate pair", "UTF-8")),
        (("--device-map", "m" * 300), ("--device-map: 'mmm", "is no device map")),
        (("--max-memory", "m" * 300), ("--max-memory: 'mmm", "is no device")),
        (("--max-memory", "0=" + "9" * 5000), ("--max-memory: '999", "is no size")),
        (("--max-memory", "\u00b2=1GiB"), ("--max-memory: '\u00b2'", "is no device")),
        (("--keep",), ("--keep", "adafv ask --help")),
    ],
)
def test_bad_flags_are_usage(image: str, model: FakeModel, flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(2, parts, "ask", image, "q", *flags)
    assert not model.loaded


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": 1.5}', '{"a": "mars"}', "no"])
def test_a_device_map_file_that_is_none(image: str, model: FakeModel, tmp_path: Path, text: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    refused(2, ("--device-map", "map.json"), "ask", image, "q", "--device-map", str(path))


def test_a_bad_variable_is_named(image: str, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAFV_KEEP", "abc")
    refused(2, ("ADAFV_KEEP: 'abc'",), "ask", image, "q")


def test_unknown_command(model: FakeModel) -> None:
    refused(2, ("aks", "adafv --help"), "aks")


def test_missing_image_is_usage(model: FakeModel, tmp_path: Path) -> None:
    refused(2, ("gone.png", "No such file", "check the path"), "ask", str(tmp_path / "gone.png"), "q")


def test_an_image_is_no_question(image: str, model: FakeModel, tmp_path: Path) -> None:
    other = picture(tmp_path / "b.png")
    for command, *flags in (("ask",), ("show", "--json")):
        anyway = f"echo {other} | adafv {command} {image}"
        refused(2, ("b.png' is an image", "adafv batch", anyway), command, image, other, *flags)
    refused(2, ("b.png' is an image",), "ask", image, "what is this?", other)
    (tmp_path / "notes").write_text("no image")
    assert adafv("ask", image, str(tmp_path / "notes"), str(tmp_path / "gone.png")).code == 0
    assert adafv("ask", image, stdin=other.encode()).code == 0  # as the message says


def test_links_that_lead_to_themselves(image: str, model: FakeModel, tmp_path: Path) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    for command, flag in (("batch", "-o"), ("batch", "--report"), ("sweep", "--plot")):
        refused(2, (f"{flag}: {loop}", "Too many levels of symbolic links"), command, image, flag, str(loop))
    refused(2, ("-o: ", "Too many levels"), "show", image, "q", "-o", str(loop))
    refused(2, ("Too many levels",), "ask", str(loop), "q")


@pytest.mark.parametrize("value", ["true", "False"])
def test_a_switch_takes_no_value(image: str, model: FakeModel, value: str) -> None:
    refused(2, (f"'{value}' is no question, and switches take no value",), "ask", image, "--offline", value)


def test_names_that_no_file_can_have(image: str, model: FakeModel) -> None:
    long = "x" * 300
    refused(2, ("image 'xxx", "File name too long"), "ask", long, "q")
    for flag in ("-o", "--report"):
        refused(2, (f"{flag}: xxx", "File name too long"), "batch", image, flag, long)
    refused(2, ("-o: ", "File name too long"), "batch", image, "-o", "x" * 250)  # of its settings
    refused(2, ("-o: xxx", "File name too long"), "show", image, "q", "-o", f"{long}.png")
    refused(2, ("--plot: xxx", "File name too long"), "sweep", image, "--plot", f"{long}.png")
    refused(2, ("--image: 'xxx", "neither a size nor a file"), "info", "--image", long)
    refused(2, ("--image-folder: xxx", "is no folder"), "batch", image, "--image-folder", long)
    refused(2, ("input 'xxx", "File name too long"), "batch", long)
    refused(3, ("xxx",), "info", long)
    assert not model.loaded


def test_web_address_is_usage(model: FakeModel) -> None:
    refused(2, ("http://x/y.jpg", "curl -sL http://x/y.jpg | adafv ask -"), "ask", "http://x/y.jpg", "q")


def test_unreadable_images_are_malformed_input(model: FakeModel, tmp_path: Path) -> None:
    text, empty = tmp_path / "text.png", tmp_path / "empty.png"
    text.write_text("not an image")
    empty.touch()
    for path in (text, empty, tmp_path):
        refused(4, (str(path),), "ask", str(path), "q")
    assert not model.loaded


def test_stdin_that_is_no_image(model: FakeModel) -> None:
    refused(4, ("image bytes",), "ask", "-", "q", stdin=b"not an image")
    refused(4, ("image bytes",), "ask", "-", "q", stdin=b"")


@pytest.mark.parametrize("questions,parts", [(("",), ("empty",)), (("a", " \n"), ("question 2", "empty"))])
def test_empty_questions(image: str, model: FakeModel, questions: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(4, parts, "ask", image, *questions)


def test_bad_questions_on_stdin(image: str, model: FakeModel) -> None:
    refused(4, ("the question is empty",), "ask", image, stdin=b" \n")
    refused(4, ("not UTF-8",), "ask", image, stdin=b"\xff\xfe")


def test_undecodable_question(image: str, model: FakeModel) -> None:
    refused(4, ("not valid UTF-8",), "ask", image, os.fsdecode(b"caf\xe9?"))


def test_one_stdin_cannot_be_both(model: FakeModel) -> None:
    refused(2, ("cannot both",), "ask", "-")
    refused(2, ("cannot both",), "ask", "-", "-")


def test_a_terminal_is_not_waited_for(image: str, model: FakeModel) -> None:
    refused(2, ("QUESTION is missing",), "ask", image, stdin_tty=True)
    refused(2, ("IMAGE is missing",), "ask", "-", "q", stdin_tty=True)


@pytest.mark.parametrize(
    "failure,code,parts",
    [
        (CheckpointError("model: x is broken", "fetch it"), 3, ("x is broken", "fetch it")),
        (DeviceError("device_map: there is no cuda:7", "use cpu"), 3, ("cuda:7", "use cpu")),
        (OutOfMemoryError("CUDA out of memory. Tried"), 3, ("out of memory", "--device-map auto")),
        (MemoryError(), 3, ("out of memory", "--keep")),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 3, ("out of memory",)),
        (ZeroDivisionError("by zero"), 70, ("unexpected ZeroDivisionError: by zero", "-vv")),
    ],
)
def test_failures_of_loading(
    image: str, monkeypatch: pytest.MonkeyPatch, failure: Exception, code: int, parts: tuple[str, ...]
) -> None:
    install(monkeypatch, FakeModel(), failure)
    refused(code, parts, "ask", image, "q")


def test_scores_that_cannot_be_used(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel([InputError("saliency holds NaN", "try float32")]))
    refused(4, ("saliency holds NaN", "try float32"), "ask", image, "q")


def test_traceback_with_vv(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeModel(), ZeroDivisionError("by zero"))
    done = adafv("ask", image, "q", "-vv")
    assert done.code == 70
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("adafv: unexpected ZeroDivisionError: by zero\n")


@pytest.mark.parametrize("disguised", [False, True])
def test_interrupted(image: str, monkeypatch: pytest.MonkeyPatch, disguised: bool) -> None:
    failure: BaseException = KeyboardInterrupt()
    if disguised:
        failure = ImportError("torch failed")
        failure.__cause__ = KeyboardInterrupt()
    install(monkeypatch, FakeModel(), failure)
    done = adafv("ask", image, "q")
    assert (done.code, done.stdout, done.stderr) == (130, "", "adafv: interrupted\n")


def test_errors_are_checked_before_torch_is_imported(tmp_path: Path) -> None:
    import subprocess

    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    good = picture(tmp_path / "good.png")
    for args in ((str(bad), "q"), (good, "q", "--keep", "0"), (good, ""), (good, "q", "--pruner", "x")):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "adafv_cli", "ask", *args],
            capture_output=True,
            text=True,
            check=False,
        )
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
        assert done.returncode in (2, 4)
        assert "typer" in imported
        assert not {"torch", "transformers"} & imported


def test_an_error_that_is_said_to_come_of_itself_ends_like_any_other(
    monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    failure = InputError("config: half of it is missing", "fetch it again")
    failure.__cause__ = failure
    install(monkeypatch, FakeModel(), failure)
    refused(4, ("config: half of it is missing",), "ask", image, "what?")


def test_an_input_error_while_loading_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    install(monkeypatch, FakeModel(), InputError("seed: 5 is odd", "give an even one"))
    refused(4, ("adafv: seed: 5 is odd", "give an even one"), "ask", image, "what?")
