"""The second checkpoint's recipe: crops as stock transformers cuts and packs them, and places that are gone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from recipe.dataset import SKY
from recipe.next import __main__ as command
from recipe.next import heldout
from recipe.next.__main__ import SMOKE, make
from recipe.next.asked_for import ENCODED, Gate, gates_of
from recipe.next.batches import asked, batch_of, order_of, show
from recipe.next.dataset import PICTURES, open_store
from recipe.next.erasing import constant, placeless, shown, waves
from recipe.next.export import exported_tiled
from recipe.next.gates import measure
from recipe.next.handling import USES
from recipe.next.mosaic import NEWLINE, SHAPES, crops_of, image_processor, mosaic_of, origins, places
from recipe.next.scenes import compose_wide
from recipe.next.training import read, train_tiled
from recipe.next.views import draw, labels
from recipe.questions import HARD_KINDS
from recipe.vision_losses import PATCHES
from recipe.vision_training import load_eyes, normalised
from recipe.vocabulary import WORDS

SIZES = [(192, 384), (384, 192), (384, 384), (192, 576), (576, 192), (250, 384), (192, 230), (500, 192), (192, 431)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a few steps of every stage make."""
    folder = tmp_path_factory.mktemp("next")
    make(SMOKE, folder)
    return folder


@pytest.fixture(scope="module")
def stock(made: Path):
    folder = made / "checkpoint"
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return AutoProcessor.from_pretrained(folder), model.eval()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patches_are_packed_as_stock_transformers_packs_them(stock, size: tuple[int, int]) -> None:
    mosaic = mosaic_of(*size)
    numbers = torch.arange(mosaic.crops * PATCHES, dtype=torch.float32).view(mosaic.crops, PATCHES, 1)
    packed, _ = stock[1].model.pack_image_features(
        [numbers], [torch.tensor(size)], vision_feature_select_strategy="default", image_newline=torch.tensor([-1.0])
    )
    order = origins(mosaic)
    assert packed[0][:, 0].long().tolist() == order.tolist()
    assert len(order) == mosaic.packed
    place = places(mosaic)[order != NEWLINE]
    crop, cell = np.divmod(order[order != NEWLINE], PATCHES)
    column, row = place[crop > 0].T
    assert (column.max() + 1, row.max() + 1) == (mosaic.wide, mosaic.high)
    tile = (row + mosaic.top) // 16 * mosaic.columns + (column + mosaic.left) // 16 + 1
    assert tile.tolist() == crop[crop > 0].tolist()
    assert ((column + mosaic.left) % 16).tolist() == (cell[crop > 0] % 16).tolist()


def test_the_export_answers_as_stock_transformers_does(made: Path, stock) -> None:
    processor, model = stock
    store, eyes = open_store(made / PICTURES, SMOKE.pictures), load_eyes(made / "eyes.pt").eval()
    language, images = exported_tiled(made / "checkpoint"), image_processor()
    rng = np.random.default_rng(0)
    for index in (0, 1):
        wide = compose_wide(SMOKE.scenes, index)
        picture = draw(wide)
        questions = asked(rng, store.things[index], 3)
        shown = show(store, [index])
        origin = origins(mosaic_of(wide.height, wide.width))
        with torch.no_grad():
            tokens = eyes(normalised(torch.from_numpy(crops_of(picture, images))))[0].flatten(0, 1)
            shown.tokens[0][torch.from_numpy(origin != NEWLINE)] = tokens[origin[origin != NEWLINE]]
            _, last, _ = read(language, eyes.words, batch_of(shown, [questions]))
            for number, question in enumerate(questions):
                inputs = processor(
                    images=picture, text=f"USER: <image>\n{question.text} ASSISTANT:", return_tensors="pt"
                )
                assert torch.allclose(model(**inputs).logits[0, -1], last[number], atol=0.02)


def test_a_batch_answers_as_its_pictures_alone(made: Path) -> None:
    store, words = open_store(made / PICTURES, SMOKE.pictures), load_eyes(made / "eyes.pt").words.detach()
    lengths = [mosaic_of(*map(int, size)).packed for size in store.size]
    chosen = [int(np.argmin(lengths)), int(np.argmax(lengths))]
    assert lengths[chosen[0]] < lengths[chosen[1]]
    language = exported_tiled(made / "checkpoint")
    questions = [asked(np.random.default_rng(0), store.things[index], 3) for index in chosen]
    with torch.no_grad():
        together = read(language, words, batch_of(show(store, chosen), questions))[1]
        alone = [
            read(language, words, batch_of(show(store, [index]), [some]))[1]
            for index, some in zip(chosen, questions, strict=True)
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-3)


def test_scenes_come_in_every_mosaic_and_fill_it() -> None:
    found = set()
    for index in range(60):
        wide = compose_wide(1, index)
        mosaic = mosaic_of(wide.height, wide.width)
        found.add((mosaic.rows, mosaic.columns))
        fills = wide.width == mosaic.columns * 192, wide.height == mosaic.rows * 192
        assert any(fills)  # so that the tiles have the pixels as they were drawn
        assert 1 / 3 - 0.01 <= wide.width / wide.height <= 3.01
        for thing in wide.scene.things:
            half_x, half_y = thing.extent
            assert half_x <= thing.x <= wide.width / wide.side - half_x
            assert half_y <= thing.y <= wide.height / wide.side - half_y
        sizes: dict[str, set[bool]] = {}
        for thing, large in zip(wide.scene.things, wide.large, strict=True):
            sizes.setdefault(thing.kind, set()).add(large)
        assert all(len(kinds) == 1 for kinds in sizes.values())
    assert found == set(SHAPES)


def test_labels_are_where_the_picture_shows_a_thing() -> None:
    """A thing painted in a color of its own fills the patches of its home view that its labels name."""
    images = image_processor()
    for index in range(4):
        wide = compose_wide(2, index)
        number = max(range(len(wide.large)), key=lambda n: wide.scene.things[n].width)
        bare = replace(wide.scene, things=tuple(t for n, t in enumerate(wide.scene.things) if n != number))
        with_it, without = (crops_of(draw(replace(wide, scene=s)), images).astype(int) for s in (wide.scene, bare))
        changed = np.abs(with_it - without).sum(-1) > 30
        share = changed.reshape(-1, 16, 12, 16, 12).mean(axis=(2, 4)).ravel()
        own = labels(wide)[0] == number
        home = (np.arange(len(own)) < PATCHES) == wide.large[number]
        assert own.any() and not own[~home].any()
        assert share[own].mean() > 0.6
        assert share[home & ~own].mean() < 0.1


def test_a_scene_of_all_classes_is_asked_about() -> None:
    """Nothing is absent there: a question whether something is has to be answered with yes."""
    things = np.array([(kind, kind % 8, 0.1 + kind / 20, 0.5, 0.01 + kind / 100, 0) for kind in range(12)], np.float32)
    questions = asked(np.random.default_rng(0), things, 60)
    assert {question.answer for question in questions if question.kind == "exist"} == {"yes"}


def test_every_thing_has_patches_in_its_home_view_alone() -> None:
    for index in range(10):
        wide = compose_wide(3, index)
        owners = labels(wide)[0]
        for number, is_large in enumerate(wide.large):
            assert (owners[:PATCHES] == number).any() == is_large
            assert (owners[PATCHES:] == number).any() != is_large


def test_what_is_projected_out_is_all_that_is_linear_in_place() -> None:
    """Two classes of things, of which one is high in its crops and is told from the other by nothing else."""
    torch.manual_seed(0)
    high = (torch.arange(PATCHES) < PATCHES // 2).expand(60, -1)
    owners = torch.where(torch.rand(60, PATCHES) < 0.4, (torch.rand(60, PATCHES) < 0.2 + 0.6 * high).long(), SKY)
    kinds = shown(owners, torch.tensor([[3, 7]]).expand(60, -1))
    assert set(kinds.unique().tolist()) == {3, 7, 12}
    tokens = torch.randn(60, PATCHES, 192)
    tokens[..., :9] += waves()[:, :9] * 3
    tokens[..., 9:12] += torch.where(owners == 1, 2.0, -2.0)[..., None]
    matrix, offset = placeless(tokens, kinds)
    left = tokens @ matrix.T + offset
    for kind in (3, 7, 12):
        x, place = left[kinds == kind].double(), waves().expand(60, -1, -1)[kinds == kind].double()
        x, place = x - x.mean(0), place - place.mean(0)
        assert (x[:, :9].T @ place / len(x)).abs().max() < 0.15  # of about 1.5
    is_thing = owners < SKY
    x, place = left[is_thing].double(), waves().expand(60, -1, -1)[is_thing].double()
    one = torch.nn.functional.one_hot(kinds[is_thing], 14).double()
    place -= one @ (one.T @ place / one.sum(0).clamp(min=1)[:, None])
    assert (x.T @ place / len(x)).abs().max() < 1e-3
    said = left[..., 9:12].mean(-1)
    assert said[owners == 1].mean() > said[owners == 0].mean() + 3  # what a token shows stays


def test_what_all_tokens_have_alike_is_no_word() -> None:
    torch.manual_seed(0)
    tokens, words = torch.randn(500, 192), torch.randn(len(WORDS), 192)
    direction = constant(tokens, words)
    assert (words @ direction).abs().max() < 1e-3
    assert direction.norm() == pytest.approx(1, abs=1e-4)


def test_a_place_in_the_picture_is_the_same_share_of_it_in_both_views(made: Path) -> None:
    """Where patches of a thing are in its view's grid is where the shares of the picture say that they are."""
    store = open_store(made / PICTURES, SMOKE.pictures)
    shown = show(store, range(SMOKE.pictures))
    for row, things in enumerate(store.things):
        for number in np.flatnonzero(things[:, 0] >= 0):
            own = (shown.bits[row] >> int(number) & 1) > 0
            is_large = bool(shown.large[row] >> int(number) & 1)
            assert bool(shown.thumbnail[row][own].all()) == is_large
            share = torch.from_numpy(things[number, 2:4] - 0.5) / shown.sides[row] + 0.5
            grid = torch.tensor([16.0, 16.0]) if is_large else shown.extent[row]
            middle = (shown.place[row][own].mean(0) + 0.5) / grid
            assert (share - middle).abs().max() < 0.09


def test_processes_get_batches_of_like_length() -> None:
    packed = np.random.default_rng(0).integers(500, 1300, 400)
    orders = [order_of(7, 0, rank, 2, packed, 4) for rank in (0, 1)]
    assert len(orders[0]) == len(orders[1]) == 50
    assert not set(orders[0].ravel()) & set(orders[1].ravel())
    longest = np.array([packed[order].max(axis=1) for order in orders])
    assert np.abs(longest[0] - longest[1]).mean() < 60
    spread = np.mean([np.ptp(packed[batch]) for batch in orders[0]])
    assert spread < np.ptp(packed) / 4


def test_a_run_that_broke_off_goes_on_as_if_it_had_not(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.load(made / "language.pt")
    (tmp_path / PICTURES).symlink_to(made / PICTURES)
    (tmp_path / "eyes.pt").symlink_to(made / "eyes.pt")
    monkeypatch.setattr("recipe.next.training.SAVED_EVERY", 1)
    arguments = (tmp_path, SMOKE.pictures, SMOKE.seed)
    start = made / "first-language.pt"
    monkeypatch.setattr("recipe.next.training.Scores.text", _broken_off_at(2))
    with pytest.raises(KeyboardInterrupt):
        train_tiled(0, 1, *arguments, SMOKE.language, start)
    monkeypatch.undo()
    assert torch.load(tmp_path / "state.pt")["steps"] == 1
    train_tiled(0, 1, *arguments, SMOKE.language, start)
    again = torch.load(tmp_path / "language.pt")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def _broken_off_at(report: int):
    calls = []

    def text(_self) -> str:
        calls.append(1)
        if len(calls) == report:
            raise KeyboardInterrupt
        return ""

    return text


def test_what_is_made_already_is_not_made_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_parallel", lambda *_: pytest.fail("trained again"))
    make(SMOKE, made)


def test_held_out_questions_are_files_of_two_splits(tmp_path: Path) -> None:
    written = {}
    for split, seed in heldout.SEEDS.items():
        asked_of = heldout.probes(1, seed)
        heldout.write(asked_of, seed, tmp_path / split)
        lines = [json.loads(line) for line in (tmp_path / split / "questions.jsonl").read_text().splitlines()]
        assert [line["answer"] for line in lines] == [probe.answer for probe in asked_of]
        assert {line["size"] for line in lines} <= {"small", "sign", "large", "absent"}
        for line in lines:
            assert Image.open(tmp_path / split / line["image"]).info["adafv-scene"] == "1"
        written[split] = [(line["text"], line["answer"]) for line in lines]
    assert len(written["report"]) == len({probe.kind for probe in asked_of}) == 10
    assert written["report"] != written["tune"]


def test_a_gate_is_passed_at_its_bound_and_missed_without_a_number() -> None:
    assert Gate("dense", 90.0, 90, True).passed
    assert not Gate("dense", 89.9, 90, True).passed
    assert Gate("chance", 25.0, 25, False).passed
    assert not any(Gate("none", float("nan"), 50, floor).passed for floor in (True, False))


def test_every_gate_is_asked_of_what_is_measured() -> None:
    row = [50.0, 1.0, 240]
    kinds = dict.fromkeys(("all", *HARD_KINDS, "color of small", "count of large"), row)
    report = {
        "dense": {"kind": kinds | {"side": [95.0, 1.0, 240]}, "mosaic": {"1x2": row}, "ratio": {"1:1 to 2:1": row}},
        "without tiles": kinds,
        "without thumbnail": kinds,
        "shuffled": kinds,
        "without the thing and its fringe": kinds,
        "stock agrees": {"same": 100.0},
        "uses": dict.fromkeys(USES, row),
    }
    gates = {gate.name: gate for gate in gates_of(report)}
    assert len(gates) == len(gates_of(report)) == 24
    assert gates["side, lost by shuffling"].value == 45
    assert {name for name, gate in gates.items() if gate.passed} == {
        "dense, side",
        "stock agrees",
        "side, lost by shuffling",
        *(f"lost by {use}" for use in ENCODED),
    }


def test_gates_take_away_what_they_say(made: Path, tmp_path: Path) -> None:
    seed = heldout.SEEDS["tune"]
    gates = measure(made / "checkpoint", heldout.probes(1, seed), seed, tmp_path / "gates", processes=1)
    assert gates["dense"]()["kind"]["all"][2] == 10
    assert gates["without tiles"]()["number"][2] == 1
    assert gates["shuffled"]().keys() >= {"side", "relation"}
    assert gates["without the thing and its fringe"]()["color"][2] == 1
