"""What is right without looking at the image: the floor from which a pruner's way to the unpruned model is measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adafv.quality.sheet import Sheet


def commonest(sheet: Sheet, rows: NDArray[np.bool_], *, soft: bool) -> float:
    """Sum up what the answer is worth that is worth most, the same for all questions of a group; over the groups.

    Args:
        sheet: whose groups are meant; all of it is one where it has none.
        rows: (questions,) which count.
        soft: by soft VQA accuracy, or the rule of the sheet; else every accepted answer is worth 1.
    """
    questions = np.asarray(sheet.answers.questions, dtype=np.int64)
    there = rows[questions]
    keys = np.asarray(sheet.answers.keys, dtype=np.uint64)[there]
    asked = np.asarray(sheet.groups, dtype=np.int64)[questions[there]]
    worth = np.asarray(sheet.answers.worth, dtype=np.float64)[there] if soft else np.ones(len(keys))
    total = 0.0
    for group in np.unique(asked):
        _, codes = np.unique(keys[asked == group], return_inverse=True)
        total += float(np.bincount(codes, worth[asked == group]).max())
    return total
