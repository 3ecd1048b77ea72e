"""Tells how long the longest prompt of a ticket will be, visual tokens included, so that like goes with like."""

from __future__ import annotations

from collections.abc import Sequence

from adafv.pipeline import Pipeline
from adafv.streaming.image_cache import ImageCache
from adafv.streaming.tickets import Ticket


def length_of(ticket: Ticket, pipeline: Pipeline, cache: ImageCache) -> int:
    """Count the tokens of a ticket's longest prompt, of all its runs; of text alone where the image is not known.

    Not their sum, by which a ticket under fewer runs would be another length than its neighbours. Worked out once for
    each ticket, from the size of its pixels, or from its encoding.

    Args:
        ticket: ready to be answered.
        pipeline: tells what an image becomes.
        cache: knows of images that are encoded already.
    """
    if ticket.length is None:
        ticket.length = _counted(ticket, pipeline, cache)
    return ticket.length


def in_order(ready: Sequence[Ticket], lengths: Sequence[int], *, by_image: bool) -> list[Ticket]:
    """Put tickets in the order in which they go with the first: by length, for little padding.

    Args:
        ready: oldest first.
        lengths: of their prompts.
        by_image: put those about one image together, at the place of the nearest, since they are prefilled together.
    """
    away = {ticket.number: abs(length - lengths[0]) for ticket, length in zip(ready, lengths, strict=True)}
    near = sorted(ready, key=lambda ticket: (away[ticket.number], ticket.number))
    firsts: dict[str | None, int] = {}
    return sorted(near, key=lambda ticket: firsts.setdefault(_image_key(ticket), len(firsts))) if by_image else near


def _image_key(ticket: Ticket) -> str | None:
    """Name the image of a ticket that is ready; `None` where it cannot be read."""
    return None if ticket.image is None or ticket.image.exception() else ticket.image.result().key


def _counted(ticket: Ticket, pipeline: Pipeline, cache: ImageCache) -> int:
    if ticket.prompt is None or ticket.question is None:
        return 0
    text, tokens = ticket.prompt.text_tokens, _image_tokens(ticket, pipeline, cache)
    if tokens is None:
        return text
    visual, packed = tokens
    kept = [run.keeping(ticket.question.keep).pruned_to(visual) for run in ticket.runs]
    return text + max((packed if keep is None else keep for keep in kept), default=0)


def _image_tokens(ticket: Ticket, pipeline: Pipeline, cache: ImageCache) -> tuple[int, int] | None:
    """Count the candidates of a ticket's image, and all its tokens."""
    if ticket.image is None or ticket.image.exception() is not None:
        return None
    image = ticket.image.result()
    if image.loaded is None:
        return cache.tokens(image.key)
    if image.loaded.exception() is not None:
        return None
    try:
        plan = pipeline.plan(image.loaded.result().pixels)
    except Exception:  # a length only sorts: what is wrong with an image is said when it is answered
        return None
    return plan.visual, plan.packed
