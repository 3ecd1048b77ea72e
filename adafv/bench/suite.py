"""Runs the sections one after the other within the time that there is, and keeps what was found as it is found."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Protocol

import torch

from adafv.bench.compiled import Compiled
from adafv.bench.latency import Latency
from adafv.bench.machine import Machine
from adafv.bench.records import SECTIONS, Bench, Row, Unmeasured
from adafv.bench.rounds import Rounds
from adafv.bench.selection import Selection
from adafv.bench.subject import Subject
from adafv.bench.synchronisations import Synchronisations
from adafv.bench.throughput import Throughput
from adafv.bench.vision import Vision
from adafv.errors import AdaFVError
from adafv.stepping import refusal

_WEIGHTS = {"latency": 3.0, "throughput": 4.0, "pruners": 1.5, "vision": 1.0, "synchronisations": 0.5, "compiled": 3.0}
Step = Callable[[str], None]
Subjects = Iterable[tuple[str, Callable[[], Subject]]]


@dataclass(frozen=True)
class Plan:
    """What is measured of each subject.

    Args:
        keeps: budgets in visual tokens; none takes those that suit the subject.
        pruners: to be timed; the first keeps the tokens in all other sections.
        batch_sizes: of throughput, of vision, and the largest but 8 of the pruners.
        per_picture: questions about each picture.
        sections: that are measured, by name.
        new_tokens: of each answer.
        compile: also decode in compiled steps on a CPU; on CUDA devices that is done in any case.
        rounds: at most.
        minutes: for everything.
    """

    keeps: tuple[int, ...] = ()
    pruners: tuple[str, ...] = ("adafv",)
    batch_sizes: tuple[int, ...] = (1, 8)
    per_picture: int = 1
    sections: tuple[str, ...] = SECTIONS
    new_tokens: int = 16
    compile: bool = False
    rounds: int = 5
    minutes: float = 5.0

    @property
    def pictures(self) -> int:
        """Pictures that are needed, so that no image is asked about more often than it shall be."""
        return max(2, -(-2 * max(self.batch_sizes) // self.per_picture))


class Section(Protocol):
    """One kind of measurement of one subject."""

    name: str

    def rounds(self) -> Rounds:
        """List the variants."""
        ...

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was measured."""
        ...


def run(subjects: Subjects, plan: Plan, bench: Bench, step: Step) -> None:
    """Measure all sections of all subjects into `bench`, which is complete in itself whenever this breaks off.

    Args:
        subjects: names, and what builds each; one is let go before the next is built.
        plan: what is measured.
        bench: is filled.
        step: is told what begins.
    """
    ways, deadline = list(subjects), time.monotonic() + 60 * plan.minutes
    for number, (name, make) in enumerate(ways):
        share = (deadline - time.monotonic()) / (len(ways) - number)
        if share <= 0:
            bench.unmeasured.append(Unmeasured("all", name, "no time was left"))
            continue
        step(f"{name}: building")
        try:
            subject = make()
        except AdaFVError as error:
            if len(ways) == 1:
                raise
            bench.unmeasured.append(Unmeasured("all", name, error.what))
            continue
        _measure(subject, plan, bench, time.monotonic() + share, step)
        del subject
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    bench.partial = False


def attentions(device: torch.device) -> Iterator[str]:
    """List the attention kernels that a suite compares: sdpa, and flash attention where it is installed."""
    yield "sdpa"
    if device.type == "cuda" and find_spec("flash_attn") is not None:
        yield "flash_attention_2"


def _say(step: Step, where: str, what: str) -> None:
    step(f"{where}: {what}")


def _measure(subject: Subject, plan: Plan, bench: Bench, deadline: float, step: Step) -> None:
    sections = [section for name in SECTIONS if name in plan.sections for section in _made(name, subject, plan, bench)]
    for number, section in enumerate(sections):
        now, left = time.monotonic(), sum(_WEIGHTS[one.name] for one in sections[number:])
        rounds = section.rounds()
        try:
            rounds.take(
                plan.rounds,
                now + max(0.0, deadline - now) * _WEIGHTS[section.name] / left,
                partial(_say, step, f"{subject.name}, {section.name}"),
            )
        finally:
            found = section.rows(rounds, bench.machine)
            bench.rows += found
        if not found:
            bench.unmeasured.append(Unmeasured(section.name, subject.name, "not one round was finished in its time"))


def _made(name: str, subject: Subject, plan: Plan, bench: Bench) -> Iterator[Section]:
    """Make a section by its name; where it cannot be measured, that is noted instead."""
    keeps, first = plan.keeps or subject.keeps, plan.pruners[0]
    middle = sorted(keeps)[len(keeps) // 2]
    cuda = any(device.type == "cuda" for device in subject.devices)
    match name:
        case "latency":
            yield Latency(subject, keeps, first, plan.new_tokens)
        case "pruners":
            yield Selection(subject, middle, plan.pruners, min(8, max(plan.batch_sizes)))
        case "throughput":
            yield Throughput(subject, middle, first, plan.batch_sizes, plan.per_picture, plan.new_tokens)
        case "vision":
            yield Vision(subject, plan.batch_sizes)
        case "synchronisations" if not cuda:
            bench.unmeasured.append(Unmeasured(name, subject.name, "counted on CUDA devices only"))
        case "synchronisations":
            yield Synchronisations(subject, middle, plan.pruners, min(8, max(plan.batch_sizes)), plan.new_tokens)
        case "compiled":
            why = refusal(subject.stock) if cuda or plan.compile else "measured on CUDA devices, or with --compile"
            if why:
                bench.unmeasured.append(Unmeasured(name, subject.name, why))
            else:
                sizes = [size for size in plan.batch_sizes if size <= 8] or [min(plan.batch_sizes)]
                yield Compiled(subject, middle, first, sizes, plan.new_tokens)
