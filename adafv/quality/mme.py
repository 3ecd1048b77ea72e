"""Sums up MME: of each subtask 100 (accuracy + accuracy+), perception and cognition being the sums (`calculation.py`).

Accuracy+ counts images both of whose questions are answered right.
"""

from __future__ import annotations

import numpy as np

from adafv.quality.intervals import Floats, Interval, Resampling, interval, ratio
from adafv.quality.sheet import ANSWERED, NO_ANSWER, NOT_THERE, Sheet

COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_PAIR = 2


def mme_scores(sheet: Sheet) -> list[dict[str, Interval]]:
    """Work out the scores of each setting of a sheet, `perception`, `cognition` and `accuracy+`, with 95 % intervals.

    Args:
        sheet: marked by `mme`, its questions grouped by subtask. What failed counts as wrong, as it does there.
    """
    groups = np.asarray(sheet.groups)
    known = np.asarray(sheet.kinds) != NO_ANSWER
    images, first = np.unique(np.asarray(sheet.clusters), return_index=True)
    places = np.searchsorted(images, np.asarray(sheet.clusters))
    draws = Resampling(places[first])
    found = []
    for column in sheet.columns:
        state = np.asarray(column.state)
        there = known & (state != NOT_THERE)
        right = np.asarray(column.exact, dtype=np.float64) * (state == ANSWERED)
        asked = np.bincount(places, weights=there, minlength=len(images))
        good = np.bincount(places, weights=right * there, minlength=len(images))
        both = (good == _PAIR) & (asked == _PAIR)
        sums = {
            name: draws.sums(np.stack([good, asked, both, asked > 0], axis=1) * (groups[first] == number)[:, None])
            for name, number in sheet.group_names.items()
        }
        found.append(_scores(sums))
    return found


def _scores(sums: dict[str, Floats]) -> dict[str, Interval]:
    """Make the scores of sums (1 + draws, 4) of marks, questions, pairs and images, by subtask."""
    if not sums:
        return {}
    parts = {name: 100 * (ratio(one[:, 0], one[:, 1]) + ratio(one[:, 2], one[:, 3])) for name, one in sums.items()}
    whole: Floats = np.sum(list(sums.values()), axis=0)
    made = {
        "perception": [part for name, part in parts.items() if name not in COGNITION],
        "cognition": [part for name, part in parts.items() if name in COGNITION],
    }
    scores = {name: interval(np.sum(some, axis=0)) for name, some in made.items() if some}
    scores["accuracy+"] = interval(ratio(whole[:, 2], whole[:, 3]))
    return {name: one for name, one in scores.items() if one is not None}
