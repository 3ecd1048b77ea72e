"""What greedy pruners are built of: cosines of all pairs, portions of a batch, coverage; and that none waits."""

from __future__ import annotations

import importlib
import random
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adafv import pruners
from adafv.pruners import coverage, greedy
from adafv.pruners.coverage import Coverage
from adafv.pruners.greedy import cosine_matrices, portions
from tests.pruner_cases import drawn, gathered
from tests.pruner_references import GREEDY

GENERATOR = torch.Generator().manual_seed(0)


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR) + 0.3


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100, 511, 512, 513, 600, 1030])
def test_cosines_of_all_pairs(length: int) -> None:
    rows = vectors(1, length, 64)
    copies = torch.randperm(length, generator=GENERATOR)
    rows[0, copies[: length // 3]] = rows[0, copies[length // 3 : 2 * (length // 3)]]
    (found,) = cosine_matrices(rows, (length,))
    unit = torch.nn.functional.normalize(rows[0].double(), dim=-1)
    assert (found - unit @ unit.T).abs().max() < 2e-6
    assert torch.equal(found, found.T)
    assert torch.equal(found[copies[: length // 3]], found[copies[length // 3 : 2 * (length // 3)]])
    assert (found.diagonal() == 1).all()


def test_cosines_are_float32_whatever_the_caller_s_default() -> None:
    tokens = vectors(1, 20, 8)
    wanted = cosine_matrices(tokens, (20,))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = cosine_matrices(tokens, (20,))
    finally:
        torch.set_default_dtype(before)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)


def test_cosines_of_every_image_are_its_own() -> None:
    rows = vectors(3, 50, 40)
    lengths = (50, 7, 23)
    together = cosine_matrices(rows, lengths, outside=-5.0)
    for number, length in enumerate(lengths):
        assert torch.equal(together[number, :length, :length], cosine_matrices(rows[number : number + 1], (length,))[0])
        assert (together[number, length:] == -5).all() and (together[number, :, length:] == -5).all()


@pytest.mark.parametrize("side", [1, 3, 48])
def test_equal_tokens_are_equal_in_every_row_of_any_width(side: int) -> None:
    for length in range(1, 70):
        same = vectors(1, 1, side).expand(1, length, side)
        assert (cosine_matrices(same, (length,)) == 1).all()


def test_portions_hold_all_images_and_few_pairs() -> None:
    rng = random.Random(0)
    for _ in range(200):
        lengths = tuple(rng.randint(1, 90) for _ in range(rng.randint(1, 9)))
        parts = list(portions(lengths, 4000))
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(lengths)))
        for part in parts:
            held = (part.stop - part.start) * max(lengths[part]) ** 2
            assert held <= 4000 or part.stop - part.start == 1


@pytest.mark.parametrize("name", GREEDY)
def test_portions_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = gathered(drawn(random.Random(6), 6))
    keep = min(evidence.lengths)
    whole = pruners.get(name)(evidence, keep).indices
    order, parts = importlib.import_module(f"adafv.pruners.{name}").order, greedy.portions
    assert torch.equal(order(evidence, keep).sort(dim=1).values, whole)
    for pairs in (1, 300, 900):
        monkeypatch.setattr(greedy, "portions", lambda lengths, _, pairs=pairs: parts(lengths, pairs))
        assert torch.equal(pruners.get(name)(evidence, keep).indices, whole)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("batch", [1, 500, 2**22])
def test_gains_are_exactly_what_they_are_from_scratch(
    everywhere: bool, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "BATCH", batch)
    if everywhere:
        monkeypatch.setattr(Coverage, "_add_by_changed_rows", Coverage._add_by_all_rows)  # what accelerators do
    for scale, grid in ((1.0, 2.0**36), (1e-3, 2.0**36), (1e-8, 2.0**36), (0.02, 2.0**51)):
        matrix = torch.rand(3, 37, 29, generator=GENERATOR) * scale
        found = Coverage(matrix, grid)
        covered = torch.zeros(3, 37)
        for _ in range(29):
            gains = (matrix.double() - covered[..., None].double()).clamp(min=0).sum(dim=1)
            assert torch.equal(found.gains, gains)
            best = torch.randint(0, 29, (3, 1), generator=GENERATOR)
            found.add(best)
            covered = torch.maximum(covered, torch.stack([m[:, i] for m, i in zip(matrix, best[:, 0], strict=True)]))


class Unasked(TorchDispatchMode):
    """Refuses what would wait for an accelerator: values, and shapes that depend on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        masks = func is torch.ops.aten.index.Tensor and any(x is not None and x.dtype == torch.bool for x in args[1])
        assert not asked and not masks, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", GREEDY)
def test_nothing_waits_for_an_accelerator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coverage, "_add_by_changed_rows", Coverage._add_by_all_rows)
    evidence = gathered(drawn(random.Random(7), 4))
    keep = min(evidence.lengths)
    with Unasked():
        indices = pruners.get(name)(evidence, keep).indices
    monkeypatch.undo()
    assert torch.equal(indices, pruners.get(name)(evidence, keep).indices)


@pytest.mark.parametrize("name", GREEDY)
def test_the_order_begins_alike_whatever_the_budget(name: str) -> None:
    evidence = gathered(drawn(random.Random(8), 5))
    order = importlib.import_module(f"adafv.pruners.{name}").order
    keep = min(evidence.lengths)
    whole = order(evidence, keep)
    for budget in range(1, keep):
        assert torch.equal(order(evidence, budget), whole[:, :budget])
