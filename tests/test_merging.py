"""Mergers: what is fed is the mean of what was merged, wherever it is made, and who breaks the promise is named."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adafv
from adafv import BatchSettings, InputError, Question, RunSettings, pruners
from adafv.choosing import Kept
from adafv.encoding import ImageEncoding
from adafv.evidence import Selection
from adafv.figures import rasters
from adafv.figures.captions import areas, legend
from adafv.pruners import Work
from adafv.pruners.crops import each
from adafv.request import Request
from adafv.signals.gathering import gather_evidence
from adafv.streaming.runs import grid
from adafv.timing import Stopwatch
from tests import tiny
from tests.conftest import noise
from tests.pruner_cases import draw, gathered
from tests.pruner_references import MERGED, Case
from tests.test_pruned import GREEDY as DECODING
from tests.test_pruned import inputs
from tests.test_pruner_registry import IMPORTS, Install, images, install

__all__ = ["install"]  # a fixture

QUESTION = "what color is the sign?"


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    folder = tiny.save_llava(tmp_path_factory.mktemp("siglip"), images=tiny.siglip_image_processor(), **tiny.siglip())
    return adafv.load(str(folder), dtype="float32")


@pytest.fixture(scope="module")
def onevision(tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    return adafv.load(str(tiny.save("llava_onevision", tmp_path_factory.mktemp("onevision"))), dtype="float32")


@pytest.fixture
def model(request: pytest.FixtureRequest) -> adafv.Model:
    found: adafv.Model = request.getfixturevalue(request.param)
    return found


def kept_of(model: adafv.Model, image: Any, **settings: Any) -> tuple[ImageEncoding, Kept]:
    """The image as it is encoded for these settings, and what the language model is fed of it."""
    run, asked = RunSettings(**settings), Question(0, image, QUESTION)
    encoding, _ = model.encode(image, run)
    request = Request(asked, model.render(asked, run), encoding)
    with torch.inference_mode():
        texts = model.pipeline.embed([request])
        return encoding, model.pipeline.prune([request], texts, run, Stopwatch())[0]


def case_of(encoding: ImageEncoding) -> Case:
    """The image as the slow references take it."""
    none: list[list[float]] = []
    keys = none if encoding.keys is None else encoding.keys.tolist()
    crop, saliency = encoding.crop.tolist(), encoding.saliency.double().tolist()
    return Case(saliency, none, none, keys, none, (0, 0), crop, encoding.grids, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_fed_is_the_weighted_mean_and_a_lone_token_itself(dtype: torch.dtype) -> None:
    packed = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    zeros, candidates = torch.zeros(6, dtype=torch.long), torch.tensor([0, 1, 2, 4, 5, 6])  # 3 and 7 are newlines
    image = ImageEncoding(packed, candidates, packed[:6], torch.ones(6), zeros, zeros, 1, ((2, 3),))
    into, weights = torch.tensor([[1, 1, 2, -1, 1, 5, -1]]), torch.tensor([[0.5, 0.25, 3.0, 9.0, 0.0, 0.1, 9.0]])
    chosen = Selection(torch.tensor([[1, 2, 5]]), into=into, weights=weights)
    kept, tokens = Kept.chosen(image, chosen, 0), image.tokens.double()
    assert kept.places.tolist() == [1, 2, 6] and kept.tokens.dtype == dtype
    wanted = (2 * tokens[0] + tokens[1]) / 3
    assert (kept.tokens[0].double() - wanted).abs().max() < (1e-6 if dtype == torch.float32 else 2e-2)
    assert torch.equal(kept.tokens[1:], packed[[2, 6]])
    assert kept.shares is not None and kept.shares.tolist() == pytest.approx([2 / 3, 1 / 3, 1, 0, 0, 1])
    (even,) = Kept.chosen(image, replace(chosen, weights=None), 0).tokens[:1].double()
    assert (even - tokens[[0, 1, 4]].mean(dim=0)).abs().max() < (1e-6 if dtype == torch.float32 else 2e-2)


def test_pool_is_average_pooling_where_the_share_fits_the_grid(llava: adafv.Model) -> None:
    encoding, kept = kept_of(llava, noise(60, 60), keep=4, pruner="pool")
    pooled = torch.nn.functional.avg_pool2d(encoding.tokens.T.view(1, -1, 4, 4), 2)[0].flatten(1).T
    assert (kept.tokens - pooled).abs().max() < 1e-6
    assert kept.places.tolist() == [5, 7, 13, 15]


@pytest.mark.parametrize("name", MERGED)
@pytest.mark.parametrize("model", ["llava", "tiled", "siglip", "onevision"], indirect=True)
def test_a_model_is_fed_the_means_of_the_definition(model: adafv.Model, name: str) -> None:
    for keep, size in ((7, (60, 60)), (13, (120, 60)), (40, (90, 60))):
        encoding, kept = kept_of(model, noise(*size), keep=keep, pruner=name)
        if keep >= encoding.visual:
            continue
        into, tokens = MERGED[name](case_of(encoding), keep), encoding.tokens.double()
        assert kept.into is not None and kept.into.tolist() == into
        wanted = [tokens[[i for i, place in enumerate(into) if place == own]].mean(dim=0) for own in sorted(set(into))]
        assert (kept.tokens.double() - torch.stack(wanted[-keep:])).abs().max() < 1e-5


@pytest.mark.parametrize("model", ["llava", "siglip"], indirect=True)
def test_keys_are_those_of_the_layer_that_saliency_reads(model: adafv.Model) -> None:
    image = noise(60, 60)
    encoding, _ = model.encode(image, RunSettings(pruner="visionzip"))
    tower: Any = model.pipeline.model.model.vision_tower
    heard: list[torch.Tensor] = []
    layer = tower.encoder.layers[-1]  # later ones, whose output is not used, are not loaded
    hook = layer.register_forward_pre_hook(lambda _module, args, kwargs: heard.append((*args, *kwargs.values())[0]),
                                           with_kwargs=True)  # fmt: skip
    model.encode(image)
    hook.remove()
    with torch.inference_mode():
        wanted = layer.self_attn.k_proj(layer.layer_norm1(heard[0]))[0, -tiny.PATCHES :]
    assert encoding.keys is not None and (encoding.keys - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_offloaded_towers_give_the_same_keys(kind: str, tmp_path: Path) -> None:
    folder = tiny.save(kind, tmp_path)
    asked: dict[str, Any] = dict(keep=13, pruner="visionzip")
    (one, kept), (other, again) = (
        kept_of(adafv.load(str(folder), dtype="float32", device_map=places), noise(120, 60), **asked)
        for places in ("cpu", {"": "disk"})
    )
    assert one.keys is not None and other.keys is not None and torch.equal(one.keys, other.keys)
    assert torch.equal(kept.tokens, again.tokens) and torch.equal(kept.places, again.places)


def test_keys_are_held_for_those_alone_who_read_them(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    image, seen = noise(60, 60), []
    assert llava.encode(image)[0].keys is llava.encode(image, RunSettings())[0].keys is None
    with pytest.raises(InputError, match="encoded without the keys that the pruner reads"):
        gather_evidence([llava.encode(image)[0]], [torch.zeros(1, 48)], [(0, 1)], [0], {"keys"})
    encode = llava.pipeline.encode
    monkeypatch.setattr(llava.pipeline, "encode", lambda *args: seen.extend(found := encode(*args)) or found)
    for names in (["adafv", "pool"], ["adafv", "visionzip"]):
        runs = grid(RunSettings(max_new_tokens=1), names, ["7"])
        ((*answers,),) = llava.sweep([Question(0, image, QUESTION)], runs)
        assert [answer.error for answer in answers] == [None] * 3
    assert [encoding.keys is None for encoding in seen] == [True, False]


def test_a_folder_of_encodings_holds_those_with_keys_apart(llava: adafv.Model, tmp_path: Path) -> None:
    encoded = []
    for name in ("adafv", "visionzip", "visionzip", "pool"):
        stream = llava.stream(
            [Question(0, noise(60, 60), QUESTION)], RunSettings(keep=7, pruner=name, max_new_tokens=1),
            BatchSettings(encodings=str(tmp_path)),
        )  # fmt: skip
        (answer,) = stream
        assert answer.error is None
        encoded.append(stream.stats.images_encoded)
    assert encoded == [1, 1, 0, 0]


@pytest.mark.parametrize("name", MERGED)
def test_each_crop_merges_its_own(name: str, tiled: adafv.Model) -> None:
    encoding, kept = kept_of(tiled, noise(120, 60), keep=30, pruner=name, crop_budget="each")
    assert kept.into is not None and len(kept.places) == 30
    assert encoding.crop[kept.into.unique()].bincount().tolist() == [10, 10, 10]
    assert torch.equal(encoding.crop[kept.into], encoding.crop)
    for crop in range(3):
        own = (encoding.crop == crop).nonzero()[:, 0]
        alone = replace(case_of(encoding), saliency=encoding.saliency[own].tolist(), crop=[0] * 16, grids=((4, 4),))
        alone = replace(alone, keys=[] if encoding.keys is None else encoding.keys[own].tolist())
        assert kept.into[own].tolist() == [int(own[place]) for place in MERGED[name](alone, 10)]


def test_weights_of_crops_are_put_together() -> None:
    evidence = gathered([replace(draw(random.Random(11), ((3, 3), (2, 5)), "plain"), crop=[0] * 9 + [1] * 10)])

    def choose(one: Any, keep: int) -> Selection:
        into = torch.full_like(one.crop, keep - 1)
        into[:, :keep] = torch.arange(keep)
        return Selection(torch.arange(keep).expand(len(into), -1), into=into, weights=one.saliency + 1)

    chosen = each(choose, evidence, 6)
    assert chosen.indices.tolist() == [[0, 1, 2, 9, 10, 11]]
    assert chosen.into is not None and chosen.into.tolist() == [[0, 1, *[2] * 7, 9, 10, *[11] * 8]]
    assert chosen.weights is not None and torch.equal(chosen.weights, evidence.saliency + 1)


@pytest.mark.parametrize("name", MERGED)
@pytest.mark.parametrize("positions", ["compact", "original"])
def test_under_the_caller_s_own_generate(name: str, positions: Any, tiled: adafv.Model) -> None:
    network, asked = tiled.pipeline.model, [(noise(120, 60), QUESTION), (noise(60, 60), "what?")]
    given = inputs(tiled, asked)
    with adafv.pruned(network, keep=9, pruner=name, positions=positions):
        output = network.generate(**given, max_new_tokens=4, **DECODING)
    ids, tokenizer = output.sequences[:, given["input_ids"].shape[1] :], tiled._checkpoint.processor.tokenizer
    for row, (image, question) in zip(ids, asked, strict=True):
        answer = tiled.ask(image, question, keep=9, pruner=name, positions=positions, max_new_tokens=4)
        assert tokenizer.decode(row, skip_special_tokens=True).strip() == answer.text


def test_reports_count_what_was_merged(llava: adafv.Model) -> None:
    pooled, plain = (
        llava.ask(noise(60, 60), QUESTION, keep=4, pruner=name, max_new_tokens=1) for name in ("pool", "uniform")
    )
    assert pooled.tokens is not None and plain.tokens is not None and pooled.flops is not None
    assert (pooled.tokens.kept, pooled.tokens.merged, plain.tokens.merged) == (4, 12, 0)
    assert pooled.flops.score == 2 * 16 * 48
    assert pooled.to_json()["tokens"]["merged"] == 12
    zipped = llava.ask(noise(60, 60), QUESTION, keep=6, pruner="visionzip", max_new_tokens=1)
    assert zipped.tokens is not None and zipped.tokens.merged == 0


def test_merging_is_charged() -> None:
    work = Work(visual=576, keep=64, question=0, hidden=4096, features=1024, keys=1024)
    mean = 2 * 576 * 4096
    assert pruners.get("pool").flops(work) == mean
    assert pruners.get("visionzip").flops(work) == 2 * (576 - 54) * 10 * 1024 + mean
    assert pruners.get("visionzip").flops(replace(work, keep=6)) == 0


@pytest.mark.parametrize(("keep", "contextual"), [(1, 0), (6, 0), (7, 1), (64, 10), (128, 20), (192, 30)])
def test_shares_of_visionzip_are_the_paper_s(keep: int, contextual: int) -> None:
    from adafv.pruners.visionzip import contextual_of

    assert contextual_of(keep) == contextual


def test_an_explanation_says_where_each_token_went(llava: adafv.Model) -> None:
    told = llava.explain(noise(60, 60), QUESTION, keep=4, pruner="pool", max_new_tokens=1)
    into = [token.into for token in told.tokens]
    assert into == [5, 5, 7, 7] * 2 + [13, 13, 15, 15] * 2
    assert {token.share for token in told.tokens} == {0.25} and areas(told) == into
    line = json.loads(json.dumps(told.to_json()["visual_tokens"]))
    assert line["into"] == into and set(line["share"]) == {0.25}
    assert legend(told, unseen=False) == [(rasters.MERGED, "16 merged into 4"), (rasters.DROPPED, "dropped 0")]
    zipped = llava.explain(noise(60, 60), QUESTION, keep=7, pruner="visionzip", max_new_tokens=1)
    assert [text for _, text in legend(zipped, unseen=False)] == ["kept 6", "10 merged into 1", "dropped 0"]
    plain = llava.explain(noise(60, 60), QUESTION, keep=4, max_new_tokens=1)
    assert [token.into for token in plain.tokens] == [i if token.kept else None for i, token in enumerate(plain.tokens)]
    assert areas(plain) == [None] * 16


def test_a_merged_area_is_drawn_as_one(llava: adafv.Model) -> None:
    told = llava.explain(noise(200, 200), QUESTION, keep=4, pruner="pool", max_new_tokens=1)
    owners = rasters.places(told, told.layers[0], (200, 200))
    seen = rasters.crops(told, owners)
    drawn = rasters.fates(seen, owners, [rasters.MERGED] * 16, areas(told), 2)
    (border,) = {tuple(drawn[y, x]) for y, x in ((0, 50), (99, 50), (100, 150), (50, 99), (150, 100), (199, 0))}
    assert border == rasters.MERGED  # around each area, and not around the tokens within
    assert tuple(drawn[50, 20]) != rasters.MERGED and tuple(drawn[20, 50]) != rasters.MERGED
    inside = (slice(10, 90), slice(10, 90))
    assert drawn[inside].std(axis=(0, 1)).max() < 0.5 * seen[inside].std(axis=(0, 1)).max()


FAULTS = [
    ("Selection(K, weights=W)", "answered weights without into"),
    ("Selection(K, into=[0, 1, 2])", "answered into a list, not a tensor"),
    ("Selection(K, into=I[:, :5])", r"answered into \(2, 5\) torch.int64, not \(2, 24\) int64"),
    ("Selection(K, into=I.float())", r"answered into \(2, 24\) torch.float32, not \(2, 24\) int64"),
    ("Selection(K, into=I, weights=W.long())", r"answered weights \(2, 24\) torch.int64, not \(2, 24\) float32"),
    ("Selection(K, into=I.masked_fill(I == 2, 24))", "merges into 24, which is outside of -1 to 23"),
    ("Selection(K, into=I.masked_fill(I == 2, -2))", "merges into -2, which is outside of -1 to 23"),
    ("Selection(K, into=I.masked_fill(I >= 0, 2))", "does not merge 0 into itself, though it keeps it"),
    ("Selection(K, into=I.masked_fill(I == 2, 3))", "merges into 3, which it does not keep"),
    ("Selection(K, into=torch.where(I < 0, 2, I))", "merges padding"),
    ("Selection(K, into=I, weights=W - 2)", "answered a weight of -1"),
    ("Selection(K, into=I, weights=W / 0)", "answered a weight of inf"),
    ("Selection(K, into=I, weights=W * float('nan'))", "answered a weight of nan"),
    ("Selection(K, into=I, weights=W * (I != 1))", "answered weights that sum to nothing for what is merged into 1"),
]


@pytest.mark.parametrize(("answer", "said"), FAULTS)
def test_mergers_that_break_the_promise_are_refused(install: Install, answer: str, said: str) -> None:
    install(
        f"{IMPORTS}K = torch.arange(3).expand(2, -1)\ndef select(evidence, keep):\n"
        "    W = torch.ones(2, 24)\n    I = torch.full((2, 24), 2)\n    I[:, :3] = torch.arange(3)\n"
        f"    I = I.masked_fill(~evidence.valid, -1)\n    return {answer}\n"
    )
    with pytest.raises(InputError, match=rf"^pruner mine \(thirdparty:select\) {said}") as raised:
        pruners.get("mine")(gathered(images()), 3)
    assert "`into` names one of them" in raised.value.fix


def test_a_merger_of_another_package_works(install: Install, llava: adafv.Model) -> None:
    install(
        f"{IMPORTS}def select(evidence, keep):\n"
        "    kept = torch.arange(keep).expand(len(evidence.valid), -1)\n"
        "    into = torch.arange(evidence.valid.shape[1]).clamp(max=keep - 1).expand(len(kept), -1)\n"
        "    return Selection(kept, into=into.masked_fill(~evidence.valid, -1), weights=evidence.saliency)\n"
    )
    encoding, kept = kept_of(llava, noise(60, 60), keep=3, pruner="mine")
    weights = encoding.saliency[2:, None]
    assert (kept.tokens[2] - (encoding.tokens[2:] * weights).sum(dim=0) / weights.sum()).abs().max() < 1e-6
