"""Every pruner: exactly K distinct tokens in order, padding without influence, a batch equal to its rows."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

import adafv
from adafv import InputError, Question, pruners
from adafv.evidence import Evidence
from adafv.pruners import READABLE, cdpruner
from adafv.pruners.uniform import _points
from tests import tiny
from tests.conftest import noise
from tests.pruner_cases import draw, drawn, gathered, spoiled
from tests.pruner_references import Case, cosine, dot

GRIDS = (((4, 6),), ((3, 3), (5, 7)), ((2, 2), (1, 9)))
NAMES = [name for name in pruners.BUILT_IN if name != "none"]
# What each looks at; a change here is a change of what is charged for it.
READS = {
    "adafv": {"text"}, "saliency": set(), "similarity": {"text"}, "divprune": {"tokens"}, "scope": {"features"},
    "cdpruner": {"text", "tokens"}, "mmtok": {"text", "features"}, "visionzip": {"keys"}, "pool": set(),
    "uniform": set(), "random": set(), "none": set(),
}  # fmt: skip


def cases(kind: str = "plain") -> list[Case]:
    """Images of different sizes and crops."""
    return [draw(random.Random(row), grids, kind) for row, grids in enumerate(GRIDS)]


def keep_of(batch: list[Case]) -> int:
    """A budget that is below the size of the smallest where that is possible."""
    return max(1, min(case.visual for case in batch) - 1)


def same(one: adafv.evidence.Selection, other: adafv.evidence.Selection) -> bool:
    """Equal tokens, the same said of who chose them, and the same merged into them, whatever the padding."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("indices", "by_saliency", "by_similarity")]
    widths = [part.into.shape[1] for part in (one, other) if part.into is not None]
    if widths:
        pairs.append((going(one, max(widths)), going(other, max(widths))))
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


def going(selection: adafv.evidence.Selection, width: int) -> torch.Tensor:
    """Where each of `width` candidates goes: a kept one into itself where nothing is said."""
    into = selection.into
    if into is None:
        nowhere = torch.full((len(selection.indices), width), -1)
        return nowhere.scatter_(1, selection.indices, selection.indices)
    return torch.nn.functional.pad(into, (0, width - into.shape[1]), value=-1)


def row(selection: adafv.evidence.Selection, number: int) -> adafv.evidence.Selection:
    parts = (getattr(selection, name) for name in ("indices", "by_saliency", "by_similarity", "into", "weights"))
    return adafv.evidence.Selection(*(None if part is None else part[number : number + 1] for part in parts))  # type: ignore[arg-type]


def test_the_registry_has_them_all_in_order() -> None:
    assert pruners.BUILT_IN == (
        "adafv", "saliency", "similarity", "divprune", "cdpruner", "scope", "mmtok", "visionzip", "pool", "uniform",
        "random", "none",
    )  # fmt: skip
    assert {name: set(pruners.get(name).reads) for name in pruners.BUILT_IN} == READS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [1, 2, 3, 7, 12, 13])
def test_exactly_k_in_order_and_never_padding(name: str, keep: int) -> None:
    batch = gathered(cases())
    indices = pruners.get(name)(batch, keep).indices
    assert indices.shape == (3, keep) and indices.dtype == torch.int64
    assert (indices[:, 1:] > indices[:, :-1]).all()
    assert batch.valid.gather(1, indices).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_rows_whatever_is_in_it(name: str) -> None:
    rng = random.Random(4)
    for _ in range(150):
        batch = drawn(rng, rng.randint(2, 6))
        keep = rng.randint(1, min(case.visual for case in batch))
        together = pruners.get(name)(gathered(batch), keep)
        for number, case in enumerate(batch):
            assert same(pruners.get(name)(gathered([case]), keep), row(together, number))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("garbage", [3.0e4, -3.0e4, 0.5, 1.0e30])
def test_padding_has_no_influence(name: str, garbage: float) -> None:
    rng = random.Random(5)
    for _ in range(40):
        batch = drawn(rng, 3)
        evidence, keep = gathered(batch), keep_of(batch)
        assert same(pruners.get(name)(evidence, keep), pruners.get(name)(spoiled(evidence, garbage), keep))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_read_need_not_be_there(name: str) -> None:
    pruner = pruners.get(name)
    lean = gathered(cases(), pruner.reads)
    assert lean.tokens.shape[2] == 0 or "tokens" in pruner.reads
    assert lean.features.shape[2] == 0 or "features" in pruner.reads
    assert lean.keys.shape[2] == 0 or "keys" in pruner.reads
    assert lean.cosine.shape[1] == 0 or "text" in pruner.reads
    assert same(pruner(lean, 6), pruner(gathered(cases(), READABLE), 6))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_reckoned_in_float32(name: str) -> None:
    def rounded(rows: list[list[float]]) -> list[list[float]]:
        halves: list[list[float]] = torch.tensor(rows).bfloat16().double().tolist()
        return halves

    names = ("tokens", "features", "keys", "text")
    exact = [replace(case, **{name: rounded(getattr(case, name)) for name in names}) for case in cases()]
    half = gathered(exact, dtype=torch.bfloat16)
    assert half.tokens.dtype is half.features.dtype is torch.bfloat16
    assert same(pruners.get(name)(half, 9), pruners.get(name)(gathered(exact), 9))


@pytest.mark.parametrize("name", NAMES)
def test_keeping_all_keeps_all(name: str) -> None:
    assert pruners.get(name)(gathered(cases()[:1]), 24).indices[0].tolist() == list(range(24))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("visionzip", "pool", "uniform", "random")])
def test_of_equal_tokens_the_first_are_kept(name: str) -> None:
    (case,) = cases()[:1]
    alike = replace(case, saliency=[0.5] * 24, tokens=case.tokens[:1] * 24, features=case.features[:1] * 24)
    nothing = replace(alike, saliency=[0.0] * 24, tokens=[[0.0] * 24] * 24, features=[[0.0] * 7] * 24)
    for keep in (1, 5, 23):
        for indices in pruners.get(name)(gathered([alike, nothing]), keep).indices:
            assert indices.tolist() == list(range(keep))


@pytest.mark.parametrize("name", ["divprune", "cdpruner"])
def test_a_copy_comes_after_everything_that_is_no_copy(name: str) -> None:
    (case,) = cases()[:1]
    copied = replace(case, tokens=case.tokens[:8] * 3)
    assert pruners.get(name)(gathered([copied]), 8).indices[0].tolist() == list(range(8))


def test_what_kept_tokens_span_comes_last_by_relevance() -> None:
    (case,) = cases()[:1]
    rng = random.Random(9)
    mixtures = [[rng.uniform(-1, 1) for _ in range(4)] for _ in range(24)]
    columns = list(zip(*case.tokens[:4], strict=True))
    flat = replace(case, tokens=[[dot(own, column) for column in columns] for own in mixtures])
    taken = cdpruner.order(gathered([flat]), 24)[0].tolist()
    mean = [sum(cosine(word, token) for word in case.text) / len(case.text) for token in flat.tokens]
    assert taken[4:] == sorted(taken[4:], key=lambda i: -mean[i]) != sorted(taken[4:])


def test_saliency_and_similarity_keep_the_best() -> None:
    one = gathered(cases()[:1])
    for name, scores in (("saliency", one.saliency[0]), ("similarity", one.similarity[0].amax(0))):
        kept = pruners.get(name)(one, 5).indices[0]
        assert set(kept.tolist()) == set(scores.topk(5).indices.tolist())


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (24, 48), (48, 12), (1, 30), (30, 1), (3, 5)])
def test_uniform_points_are_distinct_and_spread(rows: int, columns: int) -> None:
    for count in range(1, rows * columns + 1):
        points = _points(rows, columns, count)
        assert len(set(points)) == count == len(points)
        assert points == sorted(points)
        assert points[0] >= 0 and points[-1] < rows * columns
        for length, places in ((rows, [p // columns for p in points]), (columns, [p % columns for p in points])):
            middle = sum(places) / count + 0.5
            assert abs(middle - length / 2) <= max(1.5, length / 24)


def test_uniform_gives_each_grid_its_share() -> None:
    batch = gathered(cases())
    indices = pruners.get("uniform")(batch, 11).indices
    for number, grids in enumerate(GRIDS):
        head, area = grids[0][0] * grids[0][1], batch.lengths[number]
        assert abs(int((indices[number] < head).sum()) - 11 * head / area) <= 0.5


def test_random_depends_on_the_seed_alone() -> None:
    first, again = (gathered([replace(case, seed=3)]) for case in (cases()[0], cases("duplicates")[0]))
    assert torch.equal(pruners.get("random")(first, 6).indices, pruners.get("random")(again, 6).indices)
    other = replace(first, seeds=(7,))
    assert not torch.equal(pruners.get("random")(first, 6).indices, pruners.get("random")(other, 6).indices)


def test_an_unknown_pruner_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="'salency' is unknown") as raised:
        pruners.get("salency")
    assert "did you mean saliency" in raised.value.fix


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    return adafv.load(str(tiny.save(request.param, tmp_path_factory.mktemp("model"))), dtype="float32")


@pytest.mark.parametrize("name", pruners.BUILT_IN)
def test_a_model_answers_the_same_in_batches(name: str, model: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the engine, with images of different sizes and questions of different lengths."""
    chosen: list[torch.Tensor] = []
    pruner = pruners.get(name)

    def select(evidence: Evidence, keep: int) -> adafv.evidence.Selection:
        selection = pruner.select(evidence, keep)
        chosen.extend(selection.indices)
        return selection

    monkeypatch.setattr(pruners, "get", lambda _: replace(pruner, select=select))
    texts = ("what color is the sign?", "what?", "is there a red car? Please answer yes or no.")
    asked = [Question(i, noise(60 + 40 * i, 60, seed=i), text) for i, text in enumerate(texts)]
    answers = {}
    for size in (1, 3):
        batch = list(model.batch(asked, keep=7, pruner=name, batch_size=size, max_new_tokens=3))
        assert [answer.error for answer in batch] == [None] * 3
        answers[size] = [answer.text for answer in batch]
        assert all(answer.tokens and answer.tokens.kept == (answer.tokens.visual if name == "none" else 7)
                   for answer in batch)  # fmt: skip
    assert answers[1] == answers[3]
    assert len(chosen) == (0 if name == "none" else 6)
    assert sorted(map(torch.Tensor.tolist, chosen[:3])) == sorted(map(torch.Tensor.tolist, chosen[3:]))
