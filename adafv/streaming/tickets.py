"""Follows the questions of a stream from when they are read until their answers are delivered."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from adafv.errors import InputError
from adafv.prompt import Prompt
from adafv.records import Answer, Question
from adafv.settings import RunSettings
from adafv.streaming.encoder_cache import Loaded
from adafv.streaming.runs import effective
from adafv.tiled import View
from adafv.tiles import ALL


@dataclass(frozen=True)
class Image:
    """Name an image by content. `loaded` is shared by all questions about it; `None` when it is encoded already."""

    key: str
    loaded: Future[Loaded] | None


@dataclass
class Ticket:
    """Follow one input item in flight. `answers` has a slot per run, `None` until that run is done.

    `taken` is set when its answers are being made, `strikes` is of `Asked`; `length` is that of its prompts, all runs
    together, once somebody has worked it out.
    """

    number: int
    question: Question | None = None
    prompt: Prompt | None = None
    image: Future[Image] | None = None
    runs: tuple[RunSettings, ...] = ()
    answers: list[Answer | None] = field(default_factory=list)
    strikes: int = 0
    taken: bool = False
    length: int | None = None

    @property
    def answered(self) -> bool:
        """Whether all its answers are there."""
        return None not in self.answers

    @property
    def ready(self) -> bool:
        """Whether nothing about it is still being read or preprocessed."""
        if self.answered:
            return True
        if self.image is None or not self.image.done():
            return False
        loaded = None if self.image.exception() else self.image.result().loaded
        return loaded is None or loaded.done()


@dataclass
class Encoded:
    """A ticket whose image is encoded, as `views` show it under each run.

    `slots[run]`: those of `ticket.answers` that executing `run` fills.
    """

    ticket: Ticket
    question: Question
    prompt: Prompt
    key: str
    views: dict[RunSettings, View]
    slots: dict[RunSettings, list[int]]

    @classmethod
    def of(cls, ticket: Ticket, key: str, views: dict[RunSettings, View]) -> Encoded:
        """Group a ticket's runs by what they amount to for this image, so that equal ones are executed once."""
        if ticket.question is None or ticket.prompt is None:
            raise InputError("a ticket without a prompt", "")
        firsts: dict[tuple[RunSettings, str | int], RunSettings] = {}
        slots: dict[RunSettings, list[int]] = {}
        for slot, run in enumerate(ticket.runs):
            own = run.keeping(ticket.question.keep)
            image, known = views[run].image, len(ticket.question.known)
            tiles = ALL if views[run].tiled is None else run.tiles  # an answer says what was asked for
            first = firsts.setdefault((effective(own, image.visual, known, image.whole_visual), tiles), run)
            slots.setdefault(first, []).append(slot)
        return cls(ticket, ticket.question, ticket.prompt, key, views, slots)

    def fill(self, run: RunSettings, answer: Answer) -> None:
        """Put an answer into the slots of `run`, each under its own settings' names."""
        for slot in self.slots[run]:
            own = self.ticket.runs[slot].keeping(self.question.keep)
            self.ticket.answers[slot] = replace(answer, **own.named)
