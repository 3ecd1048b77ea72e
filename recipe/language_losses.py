"""What the language model learns from: the answers, and where to look on the way to them.

From answers alone it stays at guessing the commonest answer. Supervised attention shows the way in hops: a word that
names something looks at the patches of it (layer 2), the last word looks at the naming words (layer 3) and then at the
things that the answer is about (layer 4). None of these losses reaches the visual tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.dataset import SKY
from recipe.digits import COUNT, templates
from recipe.language import Thoughts
from recipe.network import HIDDEN
from recipe.packing import OPENING, Pack
from recipe.vocabulary import END, NUMBERS

WEIGHTS = {
    "answer": 1.5,
    "end": 0.1,
    "look": 0.2,
    "spread": 0.4,
    "firsts": 0.3,
    "siblings": 0.3,
    "words": 0.15,
    "object": 0.15,
    "read": 0.3,
    "place": 0.6,
    "number": 0.4,
}
LEGIBLE = 8  # percent of a patch: less of a stroke, or of the place of one that is not there, says nothing


@dataclass(frozen=True)
class Kept:
    """What the kept visual tokens show, in their order."""

    bits: Tensor  # (B, K) bit of the thing of each token, 0 for background
    siblings: Tensor  # (B, K) kept tokens of the same thing
    whole: Tensor  # (B, K) tokens of the same thing in the whole picture
    earlier: Tensor  # (B, K, K) bool: column comes before row and shows the same thing
    seen: Tensor  # (B,) bits of all things that keep a token
    strokes: Tensor  # (B, K, strokes) percent of the patch in each stroke's place, below zero where it is not painted


def kept_of(owners: Tensor, all_owners: Tensor, strokes: Tensor | None = None) -> Kept:
    """Owners of the kept tokens (B, K) and of all tokens (B, patches), strokes -> what the kept ones show."""
    is_thing = owners < SKY
    bits = torch.where(is_thing, 1 << owners.clamp(max=31), 0)
    same = (owners[:, :, None] == owners[:, None, :]) & is_thing[:, :, None]
    earlier = same & torch.ones(same.shape[1:], dtype=torch.bool).tril(-1)
    seen = torch.zeros(len(bits), dtype=torch.long)
    for bit in range(12):
        seen |= (bits == 1 << bit).any(1).long() << bit
    whole = (owners[:, :, None] == all_owners[:, None, :]).sum(-1)
    if strokes is None:
        strokes = torch.zeros(*bits.shape, COUNT, dtype=torch.int8)
    return Kept(bits, same.sum(-1).clamp(min=1), whole, earlier, seen, strokes)


def possible_digits(strokes: Tensor, least: int = LEGIBLE) -> Tensor:
    """Which digits are still possible by the strokes that patches (..., patches, strokes) show, (..., 10) bool.

    A patch shows a stroke, or that it is missing, from `least` percent on.
    """
    known = torch.from_numpy(templates())
    on, off = (strokes >= least).any(-2, keepdim=True), (strokes <= -least).any(-2, keepdim=True)
    return ~((on & ~known) | (off & known)).any(-1)


def answerable(pack: Pack, kept: Kept) -> Tensor:
    """Questions (A,) bool whose things have all kept a token, and whose number is decided by the kept ones."""
    row = pack.answer_place[:, 0]
    seen = (pack.needed & kept.seen[row]) == pack.needed
    own = (kept.bits[row] & pack.needed[:, None]) > 0
    decided = possible_digits(kept.strokes[row] * own[..., None]).sum(-1) == 1
    return seen & (decided | ~pack.reading)


class Readouts(nn.Module):
    """Linear readouts at naming words; thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.number = nn.Linear(HIDDEN, 2), nn.Linear(HIDDEN, len(NUMBERS))


def popcount(bits: Tensor) -> Tensor:
    """Number of set bits of each entry, below 2 ** 12."""
    return sum(((bits >> n & 1) for n in range(12)), torch.zeros_like(bits))


def language_losses(
    thoughts: Thoughts, logits: tuple[Tensor, Tensor], pack: Pack, kept: Kept, places: Tensor, readouts: Readouts
) -> dict[str, Tensor]:
    """Unweighted losses by name.

    logits: at the last word of each prompt and at each answer, both (A, V); places: x, y of things (B, things, 2).
    """
    fair = answerable(pack, kept)  # a guess is never rewarded
    last, ends = logits
    losses = {
        "answer": functional.cross_entropy(last[fair], pack.answer[fair]),
        "end": functional.cross_entropy(ends, torch.full((len(ends),), END)),
    }
    losses |= _word_attention(thoughts, pack, kept)
    losses |= _answer_attention(thoughts, pack, kept)
    losses |= _word_readouts(thoughts, pack, kept, places, readouts)
    return losses


def mass(attention: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """-log of the attention (n, k) that falls on `target` (n, k) bool, mean over rows that have a target."""
    rows = target.any(-1)
    weight = rows.float() if weight is None else rows * weight
    return -(((attention.float() * target).sum(-1) + 1e-4).log() * weight).sum() / weight.sum().clamp(min=1e-4)


def shares(attention: Tensor, target: Tensor) -> Tensor:
    """KL divergence of attention (n, k) from target weights (n, k), made to sum to one; mean over rows."""
    target = target / target.sum(1, keepdim=True)
    divergence = (target * ((target + 1e-6).log() - (attention.float() + 1e-6).log())).sum(-1)
    return divergence.sum() / max(1, len(divergence))


def _word_attention(thoughts: Thoughts, pack: Pack, kept: Kept) -> dict[str, Tensor]:
    """Naming words look at what they name; how many things there are is what they leave on `<s>`.

    Two heads count: one gives every patch its share of its whole thing, which it can tell from the patch alone and
    is exact when all tokens are there; the other looks at the first kept patch of each thing.
    """
    start = OPENING + kept.bits.shape[1]
    row, column = pack.word_place.unbind(1)
    attention = thoughts.attention[1][row, :, start + column]  # (M, heads, L)
    named = (kept.bits[row] & pack.word_things[:, None]) > 0  # (M, K)
    first = ~kept.earlier.any(-1)
    # Only where something is counted: the shares of a big thing's many patches would drown the few that matter.
    counted = pack.word_plural
    opening = torch.zeros(int(counted.sum()), OPENING)
    opening[:, 0] = 1.0
    spread = torch.cat([opening, (named / kept.whole[row])[counted]], dim=1)
    firsts = torch.cat([opening, (named & first[row])[counted].float()], dim=1)
    siblings = thoughts.attention[0][:, 0, OPENING:start, :start]  # (B, K, start)
    alone = torch.zeros(*kept.bits.shape, OPENING, dtype=torch.bool)
    alone[..., 0] = (kept.bits > 0) & first
    return {
        "look": mass(attention[:, 0, OPENING:start], named),
        "spread": shares(attention[counted, 1, :start], spread),
        "firsts": shares(attention[counted, 2, :start], firsts),
        "siblings": mass(
            siblings.flatten(0, 1),
            torch.cat([alone, kept.earlier], dim=2).flatten(0, 1),
            1 / kept.siblings.flatten(),  # each thing counts the same, however many patches it has
        ),
    }


def _answer_attention(thoughts: Thoughts, pack: Pack, kept: Kept) -> dict[str, Tensor]:
    """The last word looks at the naming words of its question, then at the things that it needs.

    To read a number a second head looks at all patches that show a part of it, each as much as the others.
    """
    start = OPENING + kept.bits.shape[1]
    row, column = pack.answer_place.unbind(1)
    first, last, count = pack.naming.unbind(1)
    third = thoughts.attention[2][row, :, start + column, start:]  # (A, heads, R)
    columns = torch.arange(third.shape[-1])
    own = pack.question[row] == pack.question[row, column][:, None]
    naming = torch.zeros_like(pack.question, dtype=torch.bool)
    naming[pack.word_place[:, 0], pack.word_place[:, 1]] = True
    present = (count > 0)[:, None]
    targets = (naming[row] & own, present & (columns == first[:, None]), present & (columns == last[:, None]))
    fourth = thoughts.attention[3][row, :, column, OPENING:start]
    needed = (kept.bits[row] & pack.needed[:, None]) > 0
    parts = needed & (kept.strokes[row] != 0).any(-1)
    reading = pack.reading & parts.any(-1)
    return {
        "words": torch.stack([mass(third[:, head], target) for head, target in enumerate(targets)]).sum(),
        "object": mass(fourth[:, 0], needed),
        "read": shares(fourth[reading, 1], parts[reading].float()),
    }


def _word_readouts(thoughts: Thoughts, pack: Pack, kept: Kept, places: Tensor, readouts: Readouts) -> dict[str, Tensor]:
    """After the second layer a class word knows where its thing is, and a plural how many there are."""
    start = OPENING + kept.bits.shape[1]
    row, column = pack.word_place.unbind(1)
    state = thoughts.second[row, start + column].float()
    count = popcount(pack.word_things)
    seen = (pack.word_things & kept.seen[row]) == pack.word_things
    single = pack.word_class & (count == 1) & seen
    number = pack.word_things.clamp(min=1).float().log2().long()
    centre = places[row[single], number[single]] * 2 - 1
    plural = pack.word_plural & seen & (count > 0)
    guess = readouts.number(state[plural])
    target = (count[plural] - 1).clamp(max=len(NUMBERS) - 1)
    return {
        "place": (readouts.place(state[single]) - centre).square().mean(),
        "number": functional.cross_entropy(guess, target, reduction="sum") / max(1, len(target)),
    }
