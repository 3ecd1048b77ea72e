"""What the vision part learns from: eight losses on its tokens and words, none from the answers.

The language model's losses never reach the vision tower: when they did, the tower spread every object's facts over
all patches, and the accuracy of a pruned prompt said nothing about which patches were kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.dataset import GROUND, SKY
from recipe.digits import COUNT
from recipe.drawing import GRID
from recipe.names import CLASSES, COLOURS
from recipe.network import HIDDEN
from recipe.vocabulary import BACKGROUND_IDS, CLASS_IDS, COLOUR_IDS, FUNCTION_IDS, PLURAL_IDS

PATCHES = GRID * GRID
SHARPNESS = 20.0  # of the softmax over words
NAMED = 3  # things that [CLS] has to name ...
BIG_BIAS = 1.3  # ... in proportion to this power of their area, so that saliency favours what is big
WEIGHTS = {
    "words": 1.0,
    "background": 0.3,
    "flat": 0.35,
    "cls": 0.25,
    "function": 1.0,
    "place": 0.3,
    "object": 1.5,
    "strokes": 1.5,
}
STROKE_FILLS = 25  # percent of a patch: a stroke that takes up this much of it is fully there


@dataclass(frozen=True)
class Labels:
    """Truth of a batch of pictures."""

    owners: Tensor  # (B, patches) int64: number of a thing, or SKY, GROUND
    fringe: Tensor  # (B, patches) bool
    things: Tensor  # (B, things, 6): class, colour, x, y, area, bits of strokes; class -1 where there is none
    strokes: Tensor  # (B, patches, 7): percent in the place of each stroke, below zero where it is not painted

    def of_patches(self) -> Tensor:
        """The fields of each patch's own thing, (B, patches, 6); meaningless on background."""
        index = self.owners.clamp(max=self.things.shape[1] - 1)
        return self.things.gather(1, index[..., None].expand(-1, -1, self.things.shape[2]))


class Heads(nn.Module):
    """Small readouts that only the losses use; thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Linear(HIDDEN, len(CLASSES) * len(COLOURS))
        self.place = nn.Linear(HIDDEN, 2)
        self.object = nn.Linear(HIDDEN, 3)
        self.strokes = nn.Linear(HIDDEN, COUNT)
        self.ground = nn.Parameter(torch.zeros(2, HIDDEN))
        self.position = nn.Parameter(torch.zeros(PATCHES, HIDDEN))
        rows = (torch.arange(PATCHES) // GRID + 0.5) / GRID
        columns = (torch.arange(PATCHES) % GRID + 0.5) / GRID
        self.register_buffer("own_place", torch.stack([columns, rows], dim=1) * 2 - 1, persistent=False)


def vision_losses(tokens: Tensor, cls: Tensor, table: Tensor, heads: Heads, labels: Labels) -> dict[str, Tensor]:
    """Unweighted losses by name.

    tokens: visual tokens (B, patches, hidden); cls: [CLS] feature (B, hidden); table: input embeddings (V, hidden).
    """
    tokens = tokens.float()
    is_thing = labels.owners < SKY
    directions = functional.normalize(tokens, dim=-1)
    words = functional.normalize(table, dim=-1)
    cosines = directions @ words.T
    log_words = (cosines * SHARPNESS).log_softmax(-1)
    own = labels.of_patches()
    things, background = _word_losses(log_words, own, is_thing, labels)
    centre = torch.cat([own[..., 2:4] * 2 - 1, (own[..., 4:5].clamp(min=1e-4).log() + 4) / 1.5], dim=-1)
    own_place: Tensor = heads.get_buffer("own_place")
    return {
        "words": things,
        "background": background,
        "flat": _flat_background(tokens, heads, labels),
        "cls": _cls_loss(heads.cls(cls.float()), labels.things),
        "function": cosines[..., [word for word in FUNCTION_IDS if word < len(table)]].square().mean(),
        "place": (heads.place(tokens) - own_place).square().mean(),
        "object": (heads.object(tokens) - centre).square().mean(-1)[is_thing].mean(),
        "strokes": _stroke_loss(heads.strokes(tokens), labels),
    }


def _stroke_loss(told: Tensor, labels: Labels) -> Tensor:
    """A patch that shows a part of a number tells which strokes pass through it, and which could and do not.

    Only its own: what the other patches show is not in the target, and in training many a number is no digit.
    """
    wanted = (labels.strokes / STROKE_FILLS).clamp(-1, 1)
    shows = (labels.strokes != 0).any(-1)
    return ((told - wanted).square().mean(-1) * shows).sum() / shows.sum().clamp(min=1)


def total(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Weighted sum."""
    return torch.stack([losses[name] * weight for name, weight in weights.items()]).sum()


def _word_losses(log_words: Tensor, own: Tensor, is_thing: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """Patches of a thing name its class (singular and plural) and colour; others name sky or ground."""
    kind, colour = own[..., 0].long().clamp(min=0), own[..., 1].long().clamp(min=0)
    targets = torch.stack(
        [torch.tensor(CLASS_IDS)[kind], torch.tensor(PLURAL_IDS)[kind], torch.tensor(COLOUR_IDS)[colour]]
    )
    named = log_words.gather(-1, targets.permute(1, 2, 0)).mean(-1)
    sky, ground = (log_words[..., word] for word in BACKGROUND_IDS)
    weight = 1.0 - 0.7 * labels.fringe.float()
    means = []
    for value, owner in ((sky, SKY), (ground, GROUND)):
        chosen = (labels.owners == owner) * weight
        means.append(-(value * chosen).sum() / chosen.sum().clamp(min=1))
    return -named[is_thing].mean(), (means[0] + means[1]) / 2


def _flat_background(tokens: Tensor, heads: Heads, labels: Labels) -> Tensor:
    """A background token may say "sky" or "ground" and where it is, nothing else."""
    unit = functional.rms_norm(tokens, (HIDDEN,))
    expected = heads.ground[(labels.owners == GROUND).long()] + heads.position
    plain = (labels.owners >= SKY) & ~labels.fringe
    return (unit - expected).square().mean(-1)[plain].mean()


def _cls_loss(logits: Tensor, things: Tensor) -> Tensor:
    """[CLS] names class and colour of the biggest things, the bigger the more."""
    area, order = things[..., 4].clamp(min=0).topk(NAMED, dim=1)
    share = area.pow(BIG_BIAS)
    share = share / share.sum(1, keepdim=True).clamp(min=1e-9)  # a crop may show nothing
    kind = things[..., 0].gather(1, order).long().clamp(min=0)
    colour = things[..., 1].gather(1, order).long().clamp(min=0)
    named = logits.log_softmax(-1).gather(1, kind * len(COLOURS) + colour)
    return -(named * share).sum(1).mean()
