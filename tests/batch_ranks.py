"""Processes of a launch with the fake model, forked from one that has imported everything: they begin at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests import batch_fakes

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.batch_ranks"])
PATIENCE_S = 240


def _begin(args: list[str], environment: dict[str, str], said: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 2)
    sys.argv = ["adafv", *args]
    batch_fakes.begin()


class Rank:
    """One process of a launch, or one that works alone.

    Args:
        args: of `adafv`.
        environment: on top of this process's.
        said: file for what it says on stderr.
        step_s: what a batch takes.
    """

    def __init__(self, args: list[str], environment: Mapping[str, str], said: Path, step_s: float = 0.0) -> None:
        every = {**os.environ, **environment, "FAKE_STEP_S": str(step_s)}
        self._said = said
        self.process: BaseProcess = _SERVER.Process(target=_begin, args=(args, every, str(said)))
        self.process.start()

    def wait(self) -> int:
        """Its exit code."""
        self.process.join(PATIENCE_S)
        assert self.process.exitcode is not None, f"it hangs; it said {self.said}"
        return self.process.exitcode

    @property
    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")
