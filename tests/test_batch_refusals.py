"""What `adafv batch` refuses before it loads a model: exit code, value and fix, nothing on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.batch_fakes import FakeBatchModel, answers, asking, install, questions
from tests.cli_fakes import adafv


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return install(monkeypatch)


def refused(model: FakeBatchModel, code: int, parts: tuple[str, ...], *args: str, stdin: bytes = b"") -> None:
    done = adafv("batch", *args, stdin=stdin)
    assert (done.code, done.stdout) == (code, ""), done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr
    first, _, fix = done.stderr.rstrip("\n").partition("\n")
    assert first.startswith("adafv: ") and fix.startswith("  ") and "\n" not in fix
    assert not model.loaded


@pytest.mark.parametrize(
    "flags,parts",
    [
        (("--resume",), ("--resume needs -o FILE",)),
        (("--force",), ("--force needs -o FILE",)),
        (("--resume", "-o", "-"), ("--resume needs -o FILE",)),
        (("--resume", "--force", "-o", "x"), ("contradict",)),
        (("--batch-size", "0"), ("--batch-size: '0'", "auto")),
        (("--batch-size", "many"), ("--batch-size: 'many'", "auto")),
        (("--shard", "0/4"), ("--shard: '0/4'", "1/4")),
        (("--shard", "5/4"), ("--shard: '5/4'", "1/4")),
        (("--shard", "1"), ("--shard: '1'", "1/4")),
        (("--image-folder", "no/such"), ("--image-folder: no/such",)),
        (("--report", "no/such/report.json"), ("--report: no/such/report.json",)),
        (("-o", "no/such/out.jsonl"), ("-o: ", "no/such/out.jsonl")),
        (("-o", "/"), ("-o: /",)),
        (("--compare",), ("--compare", "adafv ask")),
        (("--keep", "0"), ("--keep: 0",)),
        (("--resme",), ("--resme", "did you mean --resume?")),
    ],
)
def test_usage(tmp_path: Path, model: FakeBatchModel, flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(model, 2, parts, questions(tmp_path, asking(1)), *flags)


def test_an_input_that_cannot_be_read(tmp_path: Path, model: FakeBatchModel) -> None:
    refused(model, 2, ("gone.jsonl", "No such file"), "gone.jsonl")
    refused(model, 2, ("directory",), str(tmp_path))


def test_a_terminal_is_not_waited_for(model: FakeBatchModel) -> None:
    done = adafv("batch", "-", stdin_tty=True)
    assert done.code == 2
    assert "nothing is piped" in done.stderr


def test_the_input_is_not_overwritten(tmp_path: Path, model: FakeBatchModel) -> None:
    path = questions(tmp_path, asking(1))
    before = Path(path).read_bytes()
    (tmp_path / "link").symlink_to(path)
    for flags in (("-o", path, "--force"), ("-o", str(tmp_path / "link"), "--force"), ("--report", path)):
        done = adafv("batch", path, *flags)
        assert done.code == 2
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    "content,part",
    [
        (b"", "is empty"),
        (b"\n \r\n\n", "is empty"),
        (b"hello\nyou\n", "line 1: the line is not JSON"),
        (b'[{"text": "q"}]', "jq -c"),
        (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8"),
    ],
)
def test_no_question_at_all(tmp_path: Path, model: FakeBatchModel, content: bytes, part: str) -> None:
    refused(model, 4, (part,), questions(tmp_path, content))


def test_nothing_on_standard_input(model: FakeBatchModel) -> None:
    refused(model, 4, ("standard input is empty", '{"image"'), "-")


@pytest.mark.parametrize("first,second", [(7, 7), ("a", "a"), (1, 1.0), (True, True)])
def test_ids_that_two_lines_have(tmp_path: Path, model: FakeBatchModel, first: object, second: object) -> None:
    lines = [asking(100), asking(0) | {"question_id": first}, asking(101), asking(0) | {"question_id": second}]
    name = f"question_id {second!r}"
    refused(model, 4, ("lines 2 and 4", name), questions(tmp_path, *lines))


def test_an_id_that_is_another_lines_number(tmp_path: Path, model: FakeBatchModel) -> None:
    lines = [{"text": "a", "image": "a.png"}, asking(1)]
    refused(model, 4, ("lines 1 and 2", "question_id 1"), questions(tmp_path, *lines))


def test_ids_of_different_types_are_different(tmp_path: Path, model: FakeBatchModel) -> None:
    ids = [1, "1", True, None, "true"]
    done = adafv("batch", questions(tmp_path, *[asking(0) | {"question_id": one} for one in ids]))
    assert done.code == 0
    found = json.dumps([answer["question_id"] for answer in answers(done.stdout)])
    assert found == '[1, "1", true, 4, "true"]'  # no id is the line's number


def test_repeated_ids_when_they_are_allowed(tmp_path: Path, model: FakeBatchModel) -> None:
    """TextVQA's file has one id per image."""
    lines = [asking(1), asking(2), asking(2) | {"text": "another"}]
    path = questions(tmp_path, *lines)
    refused(model, 4, ("lines 2 and 3", "--repeated-ids"), path)
    done = adafv("batch", path, "--repeated-ids")
    assert (done.code, [answer["question_id"] for answer in answers(done.stdout)]) == (0, [1, 2, 2])
    model.loaded.clear()
    refused(model, 4, ("lines 1 and 2",), questions(tmp_path, asking(1), asking(1)), "--repeated-ids")


def test_a_repeated_id_on_standard_input_is_an_error_line(tmp_path: Path, model: FakeBatchModel) -> None:
    path = Path(questions(tmp_path, asking(1), asking(2), asking(1), asking(3)))
    done = adafv("batch", "-", "--image-folder", str(tmp_path), stdin=path.read_bytes())
    found = answers(done.stdout)
    assert done.code == 1
    assert [answer["question_id"] for answer in found] == [1, 2, "line 3", 3]
    assert "another line has question_id 1" in found[2]["error"]["message"]
