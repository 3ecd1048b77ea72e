"""The published rule, slow and plain, written apart from the library's: what the fast one must equal."""

from __future__ import annotations


def ranked(scores: list[float], without: frozenset[int] | set[int] = frozenset()) -> list[int]:
    """Best first; of equal scores the lower index."""
    return sorted((i for i in range(len(scores)) if i not in without), key=lambda i: (-scores[i], i))


def fairly_ranked(scores: list[float], crop: list[int], share: int) -> list[int]:
    """At most `share` of one crop before more of it is taken."""
    first, later, taken = [], [], dict.fromkeys(crop, 0)
    for i in ranked(scores):
        taken[crop[i]] += 1
        (first if taken[crop[i]] <= share else later).append(i)
    return first + later


def split(first: list[float], second: list[float], places: int) -> int:
    """k1 with the largest (sum of k1 firsts) * (sum of places - k1 seconds), the smallest of equals."""
    products = [sum(first[:k1]) * sum(second[: places - k1]) for k1 in range(places + 1)]
    return products.index(max(products))


def published(
    salient: list[int], similar: list[int], s: list[float], t: list[float], keep: int
) -> tuple[set[int], set[int]]:
    """The saliency part and the similarity part, before duplicates are dealt with."""
    floor = int(0.25 * keep)
    rest = keep - 2 * floor
    k1 = split([s[i] for i in salient[floor:]], [t[i] for i in similar[floor:]], rest)
    return set(salient[: floor + k1]), set(similar[: floor + rest - k1])


def select(
    s: list[float], t: list[float], keep: int, crop: list[int] | None = None
) -> tuple[list[int], set[int], set[int]]:
    """Kept tokens, those that saliency chose, those that similarity chose."""
    crop = crop or [0] * len(s)
    salient = fairly_ranked(s, crop, -(-keep // (max(crop) + 1)))
    by_s, by_t = published(salient, ranked(t), s, t, keep)
    while len(by_s | by_t) < keep:
        kept = by_s | by_t
        left = keep - len(kept)
        more_s, more_t = [i for i in salient if i not in kept], ranked(t, kept)
        k1 = split([s[i] for i in more_s], [t[i] for i in more_t], left)
        by_s, by_t = by_s | set(more_s[:k1]), by_t | set(more_t[: left - k1])
    return sorted(by_s | by_t), by_s, by_t
