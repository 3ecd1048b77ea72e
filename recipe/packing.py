"""Pack several questions about each picture of a batch into one sequence per picture.

A row is `<s> user :`, the kept visual tokens, then every question with its answer. A question sees the shared start
and itself, and its positions continue those of the start: exactly what separate prompts would compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recipe.dataset import SKY
from recipe.questions import NUMBER, SceneQuestion
from recipe.vocabulary import CLASS_IDS, COLOUR_IDS, FUNCTION_IDS, ID, PAD, PLURAL_IDS, START, UNKNOWN, encode

START_IDS = (START, ID["user"], ID[":"])
END_IDS = (ID["assistant"], ID[":"])
OPENING = len(START_IDS)
ROUND = 16  # rows are as long as a multiple of this: kernels are compiled for each new length
MASKED = -30000.0
_CLASS_OF = {word: kind for ids in (CLASS_IDS, PLURAL_IDS) for kind, word in enumerate(ids)}
_COLOUR_OF = {word: colour for colour, word in enumerate(COLOUR_IDS)}
_MOST = {ID["biggest"], ID["largest"]}


@dataclass(frozen=True)
class Pack:
    """A batch of B rows; M words in all that name something, A questions in all.

    Sets of things are bit masks: bit n is thing number n of its picture.
    """

    ids: Tensor  # (B, R) words after the visual tokens
    positions: Tensor  # (B, R) counted from the end of the visual tokens
    question: Tensor  # (B, R) number of the question in its row, 0 for padding
    word_place: Tensor  # (M, 2) row and column in `ids`
    word_things: Tensor  # (M,) bits of the things that the word names
    word_plural: Tensor  # (M,) bool: a class in its plural
    word_class: Tensor  # (M,) bool: a class, not a colour
    answer_place: Tensor  # (A, 2) row and column of the last word of each prompt
    answer: Tensor  # (A,) id of the right answer
    needed: Tensor  # (A,) bits of the things that one has to see
    naming: Tensor  # (A, 3): columns of the first and of the last naming word, and how many there are
    kind: list[str]  # (A,)
    reading: Tensor  # (A,) bool: asks for the number on a sign


def _bits(numbers: Sequence[int]) -> int:
    return sum(1 << number for number in numbers)


def _named(word: int, things: NDArray[np.float32]) -> int | None:
    """Bits of the things that a word names; None for a word that names nothing."""
    present = range(len(things))
    if word in _CLASS_OF:
        return _bits([n for n in present if int(things[n, 0]) == _CLASS_OF[word]])
    if word in _COLOUR_OF:
        return _bits([n for n in present if things[n, 0] >= 0 and int(things[n, 1]) == _COLOUR_OF[word]])
    return 1 << int(things[:, 4].argmax()) if word in _MOST else None


def _blurred(ids: list[int], rng: np.random.Generator | None) -> list[int]:
    """Now and then a word that names nothing is unknown, so that a strange word does no harm."""
    if rng is not None and rng.random() < 0.05:
        place = int(rng.integers(len(ids)))
        if ids[place] in FUNCTION_IDS:
            ids = [*ids[:place], UNKNOWN, *ids[place + 1 :]]
    return ids


def pack(
    questions: Sequence[Sequence[SceneQuestion]], things: NDArray[np.float32], rng: np.random.Generator | None = None
) -> Pack:
    """Questions per picture, and the stored things (B, things, 6), -> one batch; `rng` makes a few words unknown."""
    rows: list[list[tuple[int, int, int]]] = []
    words: list[tuple[int, int, int, bool, bool]] = []
    answers: list[tuple[int, int, int, int]] = []
    naming: list[tuple[int, int, int]] = []
    for row, asked in enumerate(questions):
        cells: list[tuple[int, int, int]] = []
        for number, question in enumerate(asked, start=1):
            ids = [*_blurred(encode(question.text), rng), *END_IDS]
            columns = []
            for offset, word in enumerate(ids):
                bits = _named(word, things[row])
                if bits is not None:
                    columns.append(len(cells) + offset)
                    words.append((row, columns[-1], bits, word in PLURAL_IDS, word in _CLASS_OF))
            naming.append((columns[0], columns[-1], len(columns)) if columns else (0, 0, 0))
            answers.append((row, len(cells) + len(ids) - 1, ID[question.answer], _bits(list(question.needed))))
            cells += [(word, place, number) for place, word in enumerate([*ids, ID[question.answer]])]
        rows.append(cells)
    length = -(-max(map(len, rows)) // ROUND) * ROUND
    grid = np.zeros((len(rows), length, 3), dtype=np.int64)
    grid[..., 0] = PAD
    for row, cells in enumerate(rows):
        grid[row, : len(cells)] = cells
    kinds = [question.kind for asked in questions for question in asked]
    named, right, table = torch.tensor(words).reshape(-1, 5), torch.tensor(answers), torch.from_numpy(grid)
    return Pack(
        table[..., 0], table[..., 1], table[..., 2],
        named[:, :2], named[:, 2], named[:, 3].bool(), named[:, 4].bool(),
        right[:, :2], right[:, 2], right[:, 3],
        torch.tensor(naming), kinds, torch.tensor([kind == NUMBER for kind in kinds]),
    )  # fmt: skip


def attention_mask(question: Tensor, start: int) -> Tensor:
    """Additive mask (B, 1, L, L) for `start` shared tokens followed by `question` (B, R)."""
    length = start + question.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    own = torch.cat([torch.zeros(len(question), start, dtype=torch.long), question], dim=1)
    allowed = (own[:, :, None] == own[:, None, :]) | (torch.arange(length) < start)
    return torch.where(allowed & causal, 0.0, MASKED)[:, None]


def choose_tokens(
    owners: NDArray[np.uint8], keep: int, biased: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random patches to keep, (B, keep) sorted; rows that are `biased` prefer things, some things more than others."""
    count, patches = owners.shape
    liking = np.exp(rng.normal(1.2, 1.1, (count, 256))).astype(np.float32)
    liking[:, SKY:] = 1.0
    weight = np.where(biased[:, None], np.take_along_axis(liking, owners.astype(np.int64), axis=1), 1.0)
    score = np.log(weight) + rng.gumbel(size=(count, patches))
    return np.sort(np.argpartition(-score, keep - 1, axis=1)[:, :keep], axis=1)
