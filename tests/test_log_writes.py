"""The log of answers: each line is written whole, whatever the system takes of it at once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from adafv_cli.work.lines import encoded
from adafv_cli.work.outlog import Log
from tests.cli_fakes import ANSWER


def test_a_line_that_is_written_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk that is nearly full takes it."""
    write, lines = os.write, [replace(ANSWER, question_id=number) for number in range(3)]
    with Log(tmp_path / "answers.jsonl") as log:
        log.begin({})
        monkeypatch.setattr(os, "write", lambda number, data: write(number, data[: 1 + len(data) // 2]))
        for line in lines:
            log.write(line)
        monkeypatch.undo()
    assert (tmp_path / "answers.jsonl").read_text() == "".join(encoded(line) + "\n" for line in lines)
