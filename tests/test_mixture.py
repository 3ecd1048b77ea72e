"""The self-adaptive mixture: equal to the plain rule, exactly K, deterministic, whatever the scores."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adafv
from adafv.evidence import Evidence
from adafv.pruners.mixture import mixture
from tests import reference


def evidence(saliency: torch.Tensor, similarity: torch.Tensor, crop: torch.Tensor | None = None) -> Evidence:
    return Evidence.of_scores(saliency, similarity[:, None], crop)


def draw(rng: random.Random, visual: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of every kind: smooth, tied, equal rankings, disjoint rankings, zeros, one that outweighs all."""
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    s, t = torch.rand(2, visual, generator=generator)
    kind = rng.randrange(7)
    if kind == 1:
        s, t = (s * 3).round() / 3, (t * 3).round() / 3
    elif kind == 2:
        t = s.clone()
    elif kind == 3:
        t = 1 - s
    elif kind == 4:
        s = torch.zeros(visual)
    elif kind == 5:
        s[rng.randrange(visual)] = 1e6
        t[rng.randrange(visual)] = 1e-30
    elif kind == 6:
        s, t = torch.zeros(visual), torch.full((visual,), 0.5)
    return s, t


def test_equals_the_plain_rule_on_thousands_of_cases() -> None:
    rng = random.Random(0)
    for _ in range(4000):
        visual = rng.randint(1, 24)
        keep = rng.choice([1, 2, 3, visual - 1, visual, rng.randint(1, visual)])
        keep = max(1, min(keep, visual))
        s, t = draw(rng, visual)
        chosen = mixture(evidence(s[None], t[None]), keep)
        kept, by_s, by_t = reference.select(s.double().tolist(), t.double().tolist(), keep)
        indices = chosen.indices[0].tolist()
        assert indices == kept
        assert chosen.by_saliency is not None and chosen.by_similarity is not None
        assert {i for i, yes in zip(indices, chosen.by_saliency[0], strict=True) if yes} == by_s
        assert {i for i, yes in zip(indices, chosen.by_similarity[0], strict=True) if yes} == by_t


def test_equals_the_plain_rule_with_several_crops() -> None:
    rng = random.Random(1)
    for _ in range(1000):
        crops, each = rng.randint(2, 5), rng.randint(1, 6)
        visual = crops * each
        crop = list(range(crops)) * each
        rng.shuffle(crop)
        keep = rng.randint(1, visual)
        s, t = draw(rng, visual)
        chosen = adafv.select(s[None], t[None], keep, crop=torch.tensor([crop]))
        assert chosen[0].tolist() == reference.select(s.double().tolist(), t.double().tolist(), keep, crop)[0]


@settings(max_examples=300)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_exactly_k_sorted_distinct_in_range(batch: int, visual: int, keep: int, seed: int) -> None:
    rng = random.Random(seed)
    rows = [draw(rng, visual) for _ in range(batch)]
    s, t = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
    indices = adafv.select(s, t, keep)
    assert indices.shape == (batch, min(keep, visual)) and indices.dtype == torch.int64
    assert (indices[:, 1:] > indices[:, :-1]).all()
    assert indices.min() >= 0 and indices.max() < visual


def test_the_floor_of_either_ranking_is_kept() -> None:
    rng = random.Random(2)
    for _ in range(500):
        visual = rng.randint(4, 60)
        keep = rng.randint(4, visual)
        s, t = draw(rng, visual)
        kept = set(adafv.select(s[None], t[None], keep)[0].tolist())
        for scores in (s, t):
            assert kept >= set(reference.ranked(scores.double().tolist())[: keep // 4])


def test_a_batch_equals_its_rows_and_repeats_itself() -> None:
    s, t = torch.rand(2, 16, 300, generator=torch.Generator().manual_seed(3))
    s[5] = t[5]
    s[6] = (s[6] * 4).round()
    together = adafv.select(s, t, 75)
    assert torch.equal(together, adafv.select(s, t, 75))
    for row in range(16):
        assert torch.equal(together[row : row + 1], adafv.select(s[row : row + 1], t[row : row + 1], 75))


def test_padding_is_never_kept() -> None:
    s, t = torch.rand(2, 1, 20, generator=torch.Generator().manual_seed(4))
    alone = mixture(evidence(s, t), 7)
    wide = evidence(torch.cat([s, s.new_zeros(1, 9)], 1), torch.cat([t, t.new_zeros(1, 9)], 1))
    valid = torch.arange(29)[None] < 20
    padded = replace(wide, valid=valid)
    assert torch.equal(mixture(padded, 7).indices, alone.indices)


def test_each_question_splits_its_own_way() -> None:
    """A signal that is satisfied with few tokens leaves the places to the other."""
    peaked, flat = torch.zeros(40), torch.linspace(1.0, 1.01, 40)  # the flat one begins at the other end
    peaked[:8] = 1 / 8
    for saliency, similarity, winner in ((flat, peaked, "saliency"), (peaked, flat, "similarity")):
        chosen = mixture(evidence(saliency[None], similarity[None]), 20)
        assert chosen.by_saliency is not None and chosen.by_similarity is not None
        more = "saliency" if chosen.by_saliency.sum() > chosen.by_similarity.sum() else "similarity"
        assert more == winner


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -0.5])
@pytest.mark.parametrize("which", ["saliency", "similarity"])
def test_scores_that_cannot_be_ranked_are_refused(bad: float, which: str) -> None:
    scores = {"saliency": torch.rand(2, 9), "similarity": torch.rand(2, 9)}
    scores[which][1, 4] = bad
    with pytest.raises(adafv.InputError, match=f"{which}: 1 of 18 scores are NaN, infinite or negative.*{bad}"):
        adafv.select(**scores, keep=3)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(adafv.InputError, match=r"\(2, 9\) and similarity \(2, 8\)"):
        adafv.select(torch.rand(2, 9), torch.rand(2, 8), 3)


def test_budgets_of_every_form() -> None:
    s, t = torch.rand(2, 1, 576)
    assert [adafv.select(s, t, keep).shape[1] for keep in (128, "128", "25%", "all", 1000)] == [128, 128, 144, 576, 576]
