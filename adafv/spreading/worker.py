"""What an actor does: loads a model, and answers blocks through the same stream as a process that works alone."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from adafv.errors import AdaFVError, CheckpointError, InputError, InternalError, cut
from adafv.records import Answer
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.spreading.places import opened
from adafv.streaming.answerer import StreamStats, Suspect
from adafv.streaming.runs import Asked

if TYPE_CHECKING:
    from adafv.engine import Model

KEY = "ADAFV_SERVER_KEY"  # as in `adafv.serving.connecting`, which needs torch


@dataclass(frozen=True)
class Fault:
    """An error on its way from another process: exceptions with several fields do not survive pickling."""

    kind: type[AdaFVError]
    what: str
    fix: str

    @classmethod
    def of(cls, error: AdaFVError) -> Fault:
        """Take an error apart."""
        return cls(type(error), error.what, error.fix)

    def error(self) -> AdaFVError:
        """Make the error again."""
        return self.kind(self.what, self.fix)


@dataclass(frozen=True)
class Job:
    """What all actors of a run are to do.

    Args:
        folder: that relative paths are relative to, where it is there.
        load: settings of the library.
        run: what questions are asked under, to be checked and described.
        key: of the servers, where there is one: a node's environment is not that of the process that asks.
    """

    folder: str
    load: LoadSettings
    run: RunSettings
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Loaded:
    """What an actor tells of its model, as `adafv.Model` does."""

    model_id: str
    is_demo: bool
    notes: tuple[str, ...]
    context: int | None
    described: dict[str, object]


@dataclass
class Done:
    """What came of a block: the answers of its first items, of all where nothing stopped it."""

    answers: list[list[Answer]] = field(default_factory=list)
    stats: StreamStats = field(default_factory=StreamStats)
    fault: Fault | None = None
    suspects: list[Suspect] = field(default_factory=list)


class Worker:
    """Answers blocks, one after the other; `halt` comes from another thread, perhaps before its block does."""

    def __init__(self, job: Job) -> None:
        self._job, self._stop = job, threading.Event()
        self._turn = self._halted = -1  # of streams
        self._model: Model | None = None

    def load(self) -> Loaded | Fault:
        """Load the model; a fault says on which node it could not be."""
        job = self._job
        with suppress(OSError):  # not there on this node: paths that are whole need none
            os.chdir(job.folder)
        if job.key is not None:
            os.environ[KEY] = job.key
        try:
            from adafv.engine import load

            model = self._model = load(job.load)
            model.check(job.run)
        except AdaFVError as error:
            return self._unloaded(Fault.of(error))
        except Exception as error:
            return self._unloaded(_defect(error))
        return Loaded(
            model.model_id,
            model.is_demo,
            (*model.notes, *model.notes_on(job.run)),
            model.context,
            model.describe(job.run),
        )

    def answer(self, items: Sequence[Asked], runs: Sequence[RunSettings], batch: BatchSettings, turn: int) -> Done:
        """Answer a block; whatever is wrong with a question is in its answer."""
        done, model = Done(), self._model
        self._turn, self._stop = turn, threading.Event()
        if turn <= self._halted:
            self._stop.set()
        if model is None:
            return Done(fault=Fault(InternalError, "an actor was asked before it had loaded", "report it"))
        try:
            stream = model.sweep((_at_hand(model, item) for item in items), runs, batch, self._stop)
        except AdaFVError as error:  # a folder of encodings that is none on this node
            return Done(fault=Fault.of(error))
        except Exception as error:
            return Done(fault=_defect(error))
        try:
            for answers in stream:
                done.answers.append(answers)
        except AdaFVError as error:
            done.fault = Fault.of(error)
            done.suspects = stream.suspects
        except Exception as error:
            done.fault = _defect(error)
        finally:
            stream.close()
        done.stats = stream.stats
        return done

    def halt(self, turn: int) -> None:
        """Finish the running batch, and no more of this stream."""
        self._halted = turn
        if self._turn <= turn:
            self._stop.set()

    def _unloaded(self, fault: Fault) -> Fault:
        """Say where a checkpoint could not be loaded: what is there on one node need not be on another."""
        what = f"on node {socket.gethostname()}: {fault.what}"
        if fault.kind is CheckpointError:
            return Fault(fault.kind, what, f"a checkpoint has to be at the same path on every node; {fault.fix}")
        return replace(fault, what=fault.what if fault.kind is InputError else what)


def _at_hand(model: Model, item: Asked) -> Asked | list[Answer]:
    """Fetch the image where it has an address; what cannot be fetched is answered."""
    question = item.question
    try:
        image = opened(question.image)
    except AdaFVError as error:
        return [model.failed(question, run, error) for run in item.runs]
    if image is question.image:
        return item
    return replace(item, question=replace(question, image=image, image_name=question.about(None).name))


def _defect(error: Exception) -> Fault:
    return Fault(InternalError, f"unexpected {type(error).__name__}: {cut(str(error))}", "report it")
