"""The two worlds that scenes come from, and the series of held-out scenes of each.

The plain world has few flat things before plain ground, and one patch of a thing says nearly all about it. The hard
world has textures, clutter, things that look alike, and numbers on signs, which no single patch shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.hard_scenes import compose_hard
from recipe.questions import HARD_KINDS, KINDS
from recipe.scenes import Scene, compose

PLAIN, HARD = "plain", "hard"
REPORT, TUNE = "report", "tune"  # what published figures rest on, and what may be looked at while deciding something
_SEEDS = {(PLAIN, REPORT): 3, (PLAIN, TUNE): 5, (HARD, REPORT): 13, (HARD, TUNE): 15}
_OFFSET = 100  # further series of the same split are this far apart; training and samples use seeds below it


@dataclass(frozen=True)
class Series:
    """Endlessly many scenes of one world, by their numbers."""

    world: str
    seed: int

    def scene(self, number: int) -> Scene:
        """Scene `number`: always the same."""
        return (compose if self.world == PLAIN else compose_hard)(self.seed, number)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of question that this world is asked."""
        return KINDS if self.world == PLAIN else HARD_KINDS


@dataclass(frozen=True)
class Blend:
    """Training scenes of both worlds: every third is plain, so that nothing is forgotten."""

    seed: int
    scrambled: float = 0.4  # of the numbers: see `compose_hard`

    def scene(self, number: int) -> Scene:
        """Scene `number`: always the same."""
        if number % 3 == 0:
            return compose(self.seed, number)
        return compose_hard(self.seed, number, self.scrambled)


def held_out(world: str = PLAIN, split: str = REPORT, offset: int = 0) -> Series:
    """The held-out series of a world; another `offset` is another series of the same kind."""
    return Series(world, _SEEDS[world, split] + _OFFSET * offset)


PUBLISHED = held_out()  # the plain series on which the published figures rest
