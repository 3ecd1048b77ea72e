"""Answers a question pruned and unpruned, in one process and decoded in one way, and compares the two."""

from __future__ import annotations

from dataclasses import replace

from adafv.answering import Answering
from adafv.generating import Generating
from adafv.records import Answer, Comparison
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.streaming.runs import unpruned


def compared(model: Answering, request: Request, whole: Request, run: RunSettings) -> Answer:
    """Answer a request, with what the unpruned model says and takes in `compare`.

    Compiled steps may not serve one of the two, for want of memory above all: then neither is decoded in them, as the
    times would differ by more than the pruning.

    Args:
        model: that is asked.
        request, whole: the question with the image as `run` sees it, and with all of it.
        run: how the first is answered; the second is with every visual token.

    Raises:
        InputError, OutOfMemoryError: as answering either does.
    """
    decoder, both = model.pipeline.decoder, ((request, run), (whole, unpruned(run)))
    if not isinstance(decoder, Generating) or not decoder.compiles:
        _warm(model, both)
        return _timed(model, both)
    unfit = decoder.unfit
    _warm(model, both, run.max_new_tokens)  # or shapes would be compiled while they are timed
    if decoder.compiles and decoder.unfit == unfit:
        answer = _timed(model, both)
        if decoder.compiles and decoder.unfit == unfit:
            return answer
    with decoder.uncompiled():
        _warm(model, both)
        return _timed(model, both)


def _warm(model: Answering, both: tuple[tuple[Request, RunSettings], ...], tokens: int = 1) -> None:
    """Answer each by so many tokens: first calls are slower, whatever they do."""
    for request, run in both:
        model.run([request], replace(run, max_new_tokens=tokens))


def _timed(model: Answering, both: tuple[tuple[Request, RunSettings], ...]) -> Answer:
    answer, whole = (model.run([request], run)[0] for request, run in both)
    if answer.latency_s is None or whole.latency_s is None:
        return answer
    return replace(answer, compare=Comparison.of(answer.text, answer.latency_s, whole.text, whole.latency_s))
