"""Gathers the questions of a whole file by their images, before the first is answered, for `--select`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from adafv.knowing import Known
from adafv.records import Question
from adafv.settings import RunSettings
from adafv_cli.exits import UsageError
from adafv_cli.work.lines import Line
from adafv_cli.work.shard import Shard
from adafv_cli.work.source import Source


@dataclass(frozen=True)
class Gathered:
    """What is known about the images of an input: of a shard the texts, of all of it a digest."""

    known: Known
    digest: str

    @classmethod
    def of(cls, source: Source, shard: Shard, runs: Iterable[RunSettings]) -> Gathered | None:
        """Read a file once for its questions, those that are answered already among them.

        Args:
            source: where they come from.
            shard: whose texts are held; all questions about an image are in one.
            runs: what they are answered under; nothing is read where each question chooses for itself.

        Raises:
            UsageError: an input that can be read only once, or more text than may be held.
        """
        select = next((run.select for run in runs if run.named["select"] is not None), None)
        if select is None:
            return None
        if source.file is None:
            what = f"--select {select}: INPUT is a pipe, whose first question is answered before all others are known"
            raise UsageError(what, "give a file, or use --select question")
        known, digest = Known(), hashlib.blake2b(digest_size=8)
        for line in source.lines():
            if line.failure is not None:
                continue
            digest.update(f"{line.image_key} {line.text}\n".encode())
            if shard.holds(line):
                known.add(line.image_key, line.text)
            if known.full:
                what = f"--select {select}: the questions of {source.name} are too much text to be held in memory"
                raise UsageError(what, "divide them with --shard, or use --select question")
        return cls(known, digest.hexdigest())

    def question(self, line: Line) -> Question:
        """Make of a line what the library takes, with what it may know."""
        return replace(line.question, known=self.known.of(line.image_key, line.text))
