"""Batches of pictures of about the same length, as LLaVA-NeXT packs them, with ten questions each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recipe.dataset import SKY
from recipe.digits import COUNT
from recipe.facts import facts_of
from recipe.network import HIDDEN
from recipe.next.dataset import Store
from recipe.next.mosaic import NEWLINE, mosaic_of, origins, places
from recipe.packing import MASKED, OPENING, START_IDS, Pack, pack
from recipe.questions import NUMBER, SceneQuestion, training_questions
from recipe.vision_losses import PATCHES

ASKED = 10  # questions a picture
WINDOW = 8  # batches that are sorted by length together
SMALL_SIGN = 0.2  # of the only signs are called small


@dataclass(frozen=True)
class Shown:
    """Packed visual tokens of B pictures, filled up to V; a token is a patch, a newline or filling."""

    tokens: Tensor  # (B, V, hidden), zero where there is no patch
    newline: Tensor  # (B, V) bool
    length: Tensor  # (B,) patches and newlines
    thumbnail: Tensor  # (B, V) bool
    tile: Tensor  # (B, V) bool
    place: Tensor  # (B, V, 2) column and row, in the thumbnail's or in the mosaic's grid
    bits: Tensor  # (B, V) bit of the thing of each patch in its home view, 0 for everything else
    strokes: Tensor  # (B, V, COUNT)
    things: Tensor  # (B, things, FIELDS)
    large: Tensor  # (B,) bits of the things whose home is the thumbnail
    extent: Tensor  # (B, 2) columns and rows of the mosaic
    sides: Tensor  # (B, 2) width and height of the picture, its longer one is 1


Reorder = Callable[[np.ndarray], np.ndarray]


def show(store: Store, chosen: Sequence[int], reorder: Reorder | None = None) -> Shown:
    """Pack pictures of a store. `reorder`: origins of packed tokens -> those to show in their place, fewer or moved."""
    orders, grids, mosaics = [], [], []
    for index in chosen:
        mosaic = mosaic_of(*(int(side) for side in store.size[index]))
        origin = origins(mosaic)
        place = places(mosaic)
        if reorder is not None:
            origin = reorder(origin)
            place = np.zeros((len(origin), 2), dtype=np.float32)
        orders.append(origin)
        grids.append(place)
        mosaics.append(mosaic)
    longest = max(map(len, orders))
    b = len(orders)
    tokens, owners = np.zeros((b, longest, HIDDEN), np.float32), np.full((b, longest), 255, np.int64)
    strokes, place = np.zeros((b, longest, COUNT), np.int8), np.zeros((b, longest, 2), np.float32)
    origin = np.full((b, longest), -2)
    for row, (index, order) in enumerate(zip(chosen, orders, strict=True)):
        is_patch, end = order != NEWLINE, len(order)
        cells = order[is_patch]
        tokens[row, :end][is_patch] = store.tokens[index][cells]
        owners[row, :end][is_patch] = store.owners[index][cells]
        strokes[row, :end][is_patch] = store.strokes[index][cells]
        place[row, :end], origin[row, :end] = grids[row], order
    known = torch.from_numpy(owners)
    large = (np.array(store.large[chosen]).astype(np.int64) << np.arange(store.large.shape[1])).sum(1)
    where = torch.from_numpy(origin)
    return Shown(
        tokens=torch.from_numpy(tokens),
        newline=where == NEWLINE,
        length=torch.tensor([len(order) for order in orders]),
        thumbnail=(where >= 0) & (where < PATCHES),
        tile=where >= PATCHES,
        place=torch.from_numpy(place),
        bits=torch.where(known < SKY, 1 << known.clamp(max=31), 0),
        strokes=torch.from_numpy(strokes),
        things=torch.from_numpy(np.array(store.things[chosen])),
        large=torch.from_numpy(large),
        extent=torch.tensor([[mosaic.wide, mosaic.high] for mosaic in mosaics]),
        sides=torch.from_numpy(store.size[chosen][:, ::-1] / store.size[chosen].max(1, keepdims=True)).float(),
    )


def asked(rng: np.random.Generator, things: np.ndarray, count: int = ASKED) -> list[SceneQuestion]:
    """Questions about one picture; its sign, where there is one alone, is now and then called small."""
    questions = training_questions(rng, facts_of(things), count)
    return [
        replace(question, text=question.text.replace("the sign", "the small sign"))
        if question.kind == NUMBER and rng.random() < SMALL_SIGN
        else question
        for question in questions
    ]


@dataclass(frozen=True)
class Batch:
    """Pictures and their questions."""

    shown: Shown
    pack: Pack

    @property
    def start(self) -> int:
        """Tokens in front of the questions."""
        return OPENING + self.shown.tokens.shape[1]


def batch_of(shown: Shown, questions: list[list[SceneQuestion]], rng: np.random.Generator | None = None) -> Batch:
    """Pack questions behind their pictures; with `rng`, now and then with a word that is unknown."""
    return Batch(shown, pack(questions, shown.things.numpy(), rng))


def prompt(words: Tensor, newline: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Embedded prompts (B, L, hidden), positions (B, L), and the additive mask of the words (B, 1, R, L)."""
    shown, packed = batch.shown, batch.pack
    opening = words[list(START_IDS)].expand(len(shown.tokens), -1, -1)
    visual = torch.where(shown.newline[..., None], newline, shown.tokens)
    first = torch.arange(batch.start).expand(len(visual), -1)
    positions = torch.cat([first, packed.positions + OPENING + shown.length[:, None]], dim=1)
    seen = first < OPENING + shown.length[:, None]
    rows = packed.question.shape[1]
    own = packed.question[:, :, None] == packed.question[:, None, :]
    own &= torch.ones(rows, rows, dtype=torch.bool).tril()
    allowed = torch.cat([seen[:, None].expand(-1, rows, -1), own], dim=2)
    mask = torch.where(allowed, 0.0, MASKED)[:, None]
    return torch.cat([opening, visual, words[packed.ids]], dim=1), positions, mask


def lengths(store: Store) -> np.ndarray:
    """Packed tokens of every picture."""
    return np.array([mosaic_of(int(height), int(width)).packed for height, width in store.size])


def order_of(seed: int, epoch: int, rank: int, world: int, packed: np.ndarray, share: int) -> np.ndarray:
    """This process's pictures of one epoch, batch by batch, (batches, share).

    A batch has pictures of about one length, the same in every process, so that none waits for another.
    """
    own = np.arange(rank, len(packed) - len(packed) % world, world)
    own = np.random.default_rng([seed, epoch, rank]).permutation(own)
    window = share * WINDOW
    batches = []
    for start in range(0, len(own) - share + 1, window):
        part = own[start : start + window]
        part = part[np.argsort(packed[part], kind="stable")]
        batches += [part[i : i + share] for i in range(0, len(part) - share + 1, share)]
    order = np.random.default_rng([seed, epoch]).permutation(len(batches))  # the same in every process
    return np.array(batches)[order]
