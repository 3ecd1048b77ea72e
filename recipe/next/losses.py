"""What the second language model learns from: answers, where to look for them, and where its tokens are.

The hops are those of the first checkpoint, one layer later: naming words look at what they name (layer 3), the last
word at the naming words (layer 4) and then at the things (layer 5), each in its home view, where it has patches. New:
tokens say where they are after the first two layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipe.drawing import GRID
from recipe.language_losses import WEIGHTS as OF_ONE_CROP
from recipe.language_losses import mass, popcount, shares
from recipe.network import HIDDEN
from recipe.next.batches import Batch, Shown
from recipe.next.language import BLOCK, Reading
from recipe.packing import OPENING
from recipe.questions import NUMBER
from recipe.vocabulary import END, NUMBERS

WEIGHTS = OF_ONE_CROP | {"order": 1.0, "line": 0.4}
LONGEST = 50.0  # columns: a little more than three tiles have
SPAN = 12.0  # columns or rows of the mosaic are counted in these


class Readouts(nn.Module):
    """Linear readouts; thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.tile = nn.ModuleList(nn.Linear(HIDDEN, 2) for _ in range(2))
        self.thumbnail = nn.ModuleList(nn.Linear(HIDDEN, 2) for _ in range(2))
        self.place, self.number = nn.Linear(HIDDEN, 4), nn.Linear(HIDDEN, len(NUMBERS))


def tiled_losses(
    reading: Reading, logits: tuple[Tensor, Tensor], batch: Batch, readouts: Readouts
) -> dict[str, Tensor]:
    """Unweighted losses by name. logits: at the last word of each prompt and at each answer, both (A, V)."""
    last, ends = logits
    losses = {
        "answer": functional.cross_entropy(last, batch.pack.answer),
        "end": functional.cross_entropy(ends, torch.full((len(ends),), END)),
        "order": _order(reading, batch.shown, readouts),
        "line": _line(reading.blocks[0], batch.shown),
        "siblings": _siblings(reading.blocks[1], batch.shown.bits),
    }
    losses |= _word_attention(reading, batch)
    losses |= _answer_attention(reading, batch)
    return losses | _word_readouts(reading, batch, readouts)


def _order(reading: Reading, shown: Shown, readouts: Readouts) -> Tensor:
    """Every patch says where it is: a large error of few tokens, such as at a line's start, counts the most."""
    errors = []
    for number, state in enumerate(reading.placed):
        told = state[:, OPENING:].float()
        for heads, view, span in ((readouts.tile, shown.tile, SPAN), (readouts.thumbnail, shown.thumbnail, GRID / 2)):
            if view.any():
                error = heads[number](told[view]) - (shown.place[view] / span - 1)
                errors.append(error.square().mean())
    return torch.stack(errors).sum()


def _line(blocks: list[Tensor], shown: Shown) -> Tensor:
    """A head of the first layer measures how far a line's patch is from the newline before: the share it gives to it.

    The rest goes to `<s>`, so that what the head reads is a mixture of the two in proportion to the column. Without
    this help columns of the mosaic are not found, while those of the thumbnail are.
    """
    losses = []
    row, place = (shown.tile & (shown.place[..., 1] > 0)).nonzero(as_tuple=True)
    column = shown.place[row, place, 0]
    share = 1 - column / LONGEST
    target = torch.stack([1 - share, share], dim=1)
    for number, block in enumerate(blocks):
        first = number * BLOCK - OPENING
        inside = (place >= first) & (place < first + block.shape[2])
        rows, at = row[inside], place[inside]
        ends = at - column[inside].long() - 1 + OPENING
        head = block[rows, 0, at - first].float()
        given = torch.stack([head[:, 0], head.gather(1, ends[:, None])[:, 0]], dim=1)
        wanted = target[inside]
        losses.append((wanted * ((wanted + 1e-6).log() - (given + 1e-6).log())).sum(-1))
    return torch.cat(losses).mean()


def _siblings(blocks: list[Tensor], bits: Tensor) -> Tensor:
    """A patch looks at the earlier patches of its thing, and the first one at `<s>`; each thing counts the same."""
    losses, weights = [], []
    for number, block in enumerate(blocks):
        first, last = max(0, number * BLOCK - OPENING), number * BLOCK + block.shape[2] - OPENING
        own = bits[:, first:last]
        rows, place = (own > 0).nonzero(as_tuple=True)
        if not len(rows):
            continue
        attention = block[rows, 0, place + first + OPENING - number * BLOCK].float()  # (n, columns)
        so_far = bits[rows, :last]
        same = so_far == own[rows, place][:, None]
        earlier = same & (torch.arange(last) < (place + first)[:, None])
        target = functional.pad(earlier, (OPENING, 0))
        target[:, 0] = ~earlier.any(-1)
        of_all = (bits[rows] == own[rows, place][:, None]).sum(-1)
        losses.append(-((attention * target).sum(-1) + 1e-4).log() / of_all)
        weights.append(1 / of_all)
    return torch.cat(losses).sum() / torch.cat(weights).sum()


def _word_attention(reading: Reading, batch: Batch) -> dict[str, Tensor]:
    """Naming words look at what they name; how many there are is what two heads leave on `<s>`."""
    shown, packed = batch.shown, batch.pack
    row, column = packed.word_place.unbind(1)
    attention = reading.attention[2][row, :, column]  # (M, heads, L)
    named = (shown.bits[row] & packed.word_things[:, None]) > 0
    plural = packed.word_plural
    rows = row[plural]
    own = (shown.bits[rows] & packed.word_things[plural, None]) > 0
    same = shown.bits[:, :, None] == shown.bits[:, None, :]
    whole = same.sum(-1).clamp(min=1)
    first = ~(same & torch.ones(same.shape[1:], dtype=torch.bool).tril(-1)).any(-1)
    opening = torch.zeros(len(rows), OPENING)
    opening[:, 0] = 1.0
    spread = torch.cat([opening, own / whole[rows]], dim=1)
    firsts = torch.cat([opening, (own & first[rows]).float()], dim=1)
    start = batch.start
    return {
        "look": mass(attention[:, 0, OPENING:start], named),
        "spread": shares(attention[plural, 1, :start], spread),
        "firsts": shares(attention[plural, 2, :start], firsts),
    }


def _answer_attention(reading: Reading, batch: Batch) -> dict[str, Tensor]:
    """The last word looks at the naming words of its question, then at the things that it needs."""
    shown, packed, start = batch.shown, batch.pack, batch.start
    row, column = packed.answer_place.unbind(1)
    first, last, count = packed.naming.unbind(1)
    words = reading.attention[3][row, :, column, start:]  # (A, heads, R)
    columns = torch.arange(words.shape[-1])
    own = packed.question[row] == packed.question[row, column][:, None]
    naming = torch.zeros_like(packed.question, dtype=torch.bool)
    naming[packed.word_place[:, 0], packed.word_place[:, 1]] = True
    present = (count > 0)[:, None]
    targets = (naming[row] & own, present & (columns == first[:, None]), present & (columns == last[:, None]))
    things = reading.attention[4][row, :, column, OPENING:start]
    needed = (shown.bits[row] & packed.needed[:, None]) > 0
    parts = needed & (shown.strokes[row] != 0).any(-1)
    reads = torch.tensor([kind == NUMBER for kind in packed.kind]) & parts.any(-1)
    return {
        "words": torch.stack([mass(words[:, head], target) for head, target in enumerate(targets)]).sum(),
        "object": mass(things[:, 0], needed),
        "read": shares(things[reads, 1], parts[reads].float()),
    }


def _word_readouts(reading: Reading, batch: Batch, readouts: Readouts) -> dict[str, Tensor]:
    """After the third layer a class word knows where its thing is, and a plural how many there are.

    A place is told twice: in columns and rows of its view's own grid, and as a share of the picture, from its middle,
    which is the same for both views.
    """
    packed, shown = batch.pack, batch.shown
    row, column = packed.word_place.unbind(1)
    state = reading.named[row, column].float()
    count = popcount(packed.word_things)
    single = packed.word_class & (count == 1)
    number = packed.word_things.clamp(min=1).float().log2().long()
    rows = row[single]
    share = (shown.things[rows, number[single], 2:4] - 0.5) / shown.sides[rows]  # of the picture, from its middle
    is_large = (shown.large[rows] >> number[single])[:, None] & 1
    grid = torch.where(is_large > 0, share * 2, (share + 0.5) * shown.extent[rows] / SPAN - 1)
    centre = torch.cat([grid, share * 2], dim=1)
    plural = packed.word_plural & (count > 0)
    target = (count[plural] - 1).clamp(max=len(NUMBERS) - 1)
    guess = readouts.number(state[plural])
    return {
        "place": (readouts.place(state[single]) - centre).square().mean(),
        "number": functional.cross_entropy(guess, target, reduction="sum") / max(1, len(target)),
    }
