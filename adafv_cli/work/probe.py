"""`--dry-run --probe`: a short run on the first questions, from which the time of all of them is guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from adafv.records import Question
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv_cli.console import Streams
from adafv_cli.loading import load_model

PROBED = 24  # questions, a few batches


@dataclass(frozen=True)
class Probe:
    """What the short run did; `guess_s` is the time of the whole one, at the same FLOP/s, without loading."""

    questions: int
    seconds: float
    flops: int
    guess_s: float


def probe(
    streams: Streams, load: LoadSettings, run: RunSettings, batch: BatchSettings, asked: list[Question], flops: int
) -> Probe | None:
    """Answer a few questions twice, the first time to warm up; `None` when none of them could be.

    Args:
        streams: where it is said what is going on.
        load, run, batch: what the whole run would be made with.
        asked: its first questions.
        flops: what all of it is estimated to take.
    """
    with streams.library_noise():
        model = load_model(load, run, streams)
        with streams.busy(f"probing with {len(asked)} questions"):
            for _ in range(2):
                start = time.perf_counter()
                answers = [answer for (answer,) in model.sweep(asked, [run], batch)]
                seconds = time.perf_counter() - start
    spent = sum(answer.flops.total for answer in answers if answer.flops is not None)
    if not spent:
        return None
    return Probe(len(asked), round(seconds, 6), spent, round(seconds * flops / spent, 6))
