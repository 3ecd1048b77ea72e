"""Images with some of their tiles left out: what is put together, asked, charged and kept of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

import adafv
from adafv import Answer, Question, RunSettings, flops, pruners
from adafv.costs.accounting import Accountant
from adafv.costs.plan import PromptPlan, plan_answer, plan_image
from adafv.encoding import ImageEncoding, Pixels
from adafv.errors import InputError
from adafv.families.skipping import SkippingStages
from adafv.images import open_image
from adafv.settings import BatchSettings
from adafv.spent import Flops
from tests.conftest import noise
from tests.test_host_questions import asked_by

SIZES = [(112, 112), (230, 90), (80, 300), (1, 1), (2_000, 5)]  # width, height
SUBSETS = [(0,), (0, 1), (0, 2), (0, 1, 2)]
ASK = "what color is the sign?"
WORDS = ("sign", "car", "boat", "red", "how many", "there")


@pytest.fixture(scope="module")
def stages(tiled: adafv.Model) -> SkippingStages:
    found = tiled.pipeline.stages
    assert isinstance(found, SkippingStages)
    return found


def crops_of(stages: SkippingStages, model: adafv.Model, image: Image.Image) -> tuple[Pixels, list[ImageEncoding]]:
    pixels = model.pipeline.preprocess(open_image(image))
    return pixels, stages.crops(pixels.values, keys=True)


@pytest.mark.parametrize("size", SIZES)
def test_all_crops_put_together_are_the_whole_image(
    tiled: adafv.Model, stages: SkippingStages, size: tuple[int, int]
) -> None:
    pixels, parts = crops_of(stages, tiled, noise(*size))
    (whole,) = stages.encode([pixels], keys=True)
    found = stages.assembled(pixels.size, dict(enumerate(parts)))
    assert found.part is None and (found.crops, found.grids) == (whole.crops, whole.grids)
    assert found.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(value, found.tensors[name]) for name, value in whole.tensors.items())


@pytest.mark.parametrize("numbers", SUBSETS)
@pytest.mark.parametrize("size", SIZES)
def test_a_part_is_the_whole_without_the_tokens_of_what_is_not_there(
    tiled: adafv.Model, stages: SkippingStages, size: tuple[int, int], numbers: tuple[int, ...]
) -> None:
    pixels, parts = crops_of(stages, tiled, noise(*size))
    (whole,) = stages.encode([pixels], keys=True)
    if len(numbers) == whole.crops:
        return
    found = stages.assembled(pixels.size, {number: parts[number] for number in numbers})
    stays = [row for row, crop in enumerate(whole.crop.tolist()) if crop in numbers]
    for name in ("features", "saliency", "cell", "keys", "tokens"):
        assert torch.equal(getattr(found, name), getattr(whole, name)[stays]), name
    assert [numbers[crop] for crop in found.crop.tolist()] == whole.crop[stays].tolist()
    boxes = stages.boxes(pixels.size, whole)
    assert stages.boxes(pixels.size, found) == [boxes[row] for row in stays]
    places = found.whole_places(torch.arange(len(found.packed)))
    assert torch.equal(found.packed, whole.packed[places])
    assert places[found.candidates].tolist() == whole.candidates[stays].tolist()
    assert (found.whole_crops, found.whole_visual, found.whole_packed) == (
        whole.crops, whole.visual, len(whole.packed)
    )  # fmt: skip
    assert found.numbers == numbers and found.crop_sizes == tuple(whole.crop_sizes[number] for number in numbers)
    assert found.grids[0] == whole.grids[0] and sum(rows * columns for rows, columns in found.grids) == found.visual


def test_a_row_ends_where_something_is_in_it(tiled: adafv.Model, stages: SkippingStages) -> None:
    """Tiles 1 and 2 are the upper row of four: eight rows of patches have four ends left, each behind its patches."""
    pixels, parts = crops_of(stages, tiled, noise(112, 112))
    upper = stages.assembled(pixels.size, {number: parts[number] for number in (0, 1, 2)})
    assert upper.newlines == 4 and upper.grids == ((4, 4), (4, 8))
    newline = tiled.pipeline.model.model.image_newline
    ends = [place for place, token in enumerate(upper.packed) if torch.equal(token, newline)]
    assert ends == [16 + 9 * row + 8 for row in range(4)]
    across = stages.assembled(pixels.size, {number: parts[number] for number in (0, 1, 4)})
    assert across.newlines == 8 and across.grids == ((4, 4), (4, 4), (4, 4))
    assert stages.assembled(pixels.size, {0: parts[0]}).newlines == 0


@pytest.mark.parametrize("pruner", pruners.names())
@pytest.mark.parametrize("crop_budget", ["joint", "each"])
def test_every_pruner_chooses_among_what_is_there(tiled: adafv.Model, pruner: str, crop_budget: Any) -> None:
    run = RunSettings(keep=12, pruner=pruner, crop_budget=crop_budget, tiles=2, max_new_tokens=2)
    tokens = tiled.ask(noise(112, 112), ASK, run).tokens
    assert tokens is not None and (tokens.tiles, tokens.crops, tokens.visual) == (2, 5, 80)
    assert tokens.kept == (48 if pruner == "none" else 12)


def test_a_share_is_one_of_the_whole_image(tiled: adafv.Model) -> None:
    kept = {
        keep: tiled.ask(noise(112, 112), ASK, keep=keep, tiles=1, max_new_tokens=1).tokens
        for keep in ("25%", "50%", 70)
    }
    assert [tokens and tokens.kept for tokens in kept.values()] == [20, 32, 32]  # of 80, of which 32 are there


@pytest.mark.parametrize("settings", [{"keep": "all", "pruner": "none"}, {"keep": 12}, {"keep": "auto"}], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_more_tiles_than_there_are_change_nothing(
    tiled: adafv.Model, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    """To the bit: the same crops go through the tower together."""
    image, run = noise(*size), RunSettings(max_new_tokens=3, **settings)
    ((whole, first),) = outcomes(tiled, image, run)
    ((part, second),) = outcomes(tiled, image, replace(run, tiles=9))
    assert torch.equal(first.kept.tokens, second.kept.tokens) and first.decoded.ids == second.decoded.ids
    assert whole.tokens == part.tokens and whole.memory_bytes == part.memory_bytes
    assert whole.flops == part.flops and part.setup is not None and part.setup.tiles == "9"


def outcomes(model: adafv.Model, image: Image.Image, run: RunSettings) -> list[Any]:
    asked = Question(0, image, ASK)
    return model.outcomes(model.requests(image, [(asked, model.render(asked, run))], run), run)


def test_positions_stay_those_of_the_whole_prompt(tiled: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    decoder = tiled.pipeline.decoder
    monkeypatch.setattr(tiled.pipeline, "decoder", Spy(decoder, seen))
    run = RunSettings(keep="all", pruner="none", tiles=1, positions="original", max_new_tokens=1)
    (answer,) = tiled.answer(noise(112, 112), [ASK], run)
    tiled.ask(noise(112, 112), ASK, replace(run, tiles="all"))
    part, whole = (spliced.positions.tolist() for spliced in seen)
    assert set(part) < set(whole) and part[-8:] == whole[-8:]
    assert answer.tokens is not None and len(part) == answer.tokens.fed


class Spy:
    """A decoder that shows what it is given."""

    requests = 0

    def __init__(self, decoder: Any, seen: list[Any]) -> None:
        self._decoder, self._seen = decoder, seen

    def __call__(self, prompts: Sequence[Any], *args: Any) -> Any:
        self._seen += prompts
        return self._decoder(prompts, *args)


def questions(images: int = 2, each: int = 3) -> list[Question]:
    pictures = [noise(130, 120, seed) for seed in range(images)]
    return [
        Question(f"{image} {word}", pictures[image], f"what is the {WORDS[word]}?")
        for word in range(each)
        for image in range(images)
    ]


def compact(answers: Sequence[Answer]) -> list[Any]:
    return [(answer.question_id, answer.text, answer.tokens) for answer in answers]


@pytest.mark.parametrize("tiles", ["auto", 1, 3])
def test_an_answer_does_not_depend_on_who_is_asked_beside_it(tiled: adafv.Model, tiles: Any) -> None:
    """Alone, in one batch, and one after the other while the image grows in the cache."""
    asked, run = questions(), RunSettings(tiles=tiles, max_new_tokens=3)
    alone = compact([replace(tiled.ask(one.image, one.text, run), question_id=one.question_id) for one in asked])
    for size in (1, 4):
        assert compact(list(tiled.batch(asked, run, batch_size=size))) == alone
    assert compact(list(tiled.stream(asked, run, BatchSettings(batch_size=2, cache_bytes=0)))) == alone


@pytest.fixture
def passes(stages: SkippingStages, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Crops of each pass through the tower."""
    sizes: list[int] = []
    through = stages._vision_features
    monkeypatch.setattr(stages, "_vision_features", lambda values: sizes.append(len(values)) or through(values))
    yield sizes


@pytest.mark.parametrize("size", [1, 6])
def test_each_crop_is_encoded_once_and_paid_by_who_wants_it_first(
    tiled: adafv.Model, passes: list[int], size: int
) -> None:
    run = RunSettings(tiles="auto", max_new_tokens=1)
    answers = list(tiled.batch(questions(), run, batch_size=size))
    wanted = [{0} | set(seen_by(tiled, one, run).numbers) for one in questions()]
    encoded = sum(len(set().union(*wanted[image::2])) for image in range(2))
    del passes[-len(wanted) * 2 :]  # what `seen_by` took
    assert sum(passes) == encoded < 2 * 5
    accountant = Accountant.of(tiled.pipeline.model.config, 2, 4)
    paid = [answer.flops.vision for answer in answers if answer.flops]
    assert sum(paid) == flops.vision(accountant.vision, encoded)
    if size == 6:
        assert passes[0] == 2 and len(passes) == 2  # both thumbnails, then all tiles that are wanted


def seen_by(model: adafv.Model, one: Question, run: RunSettings) -> ImageEncoding:
    (request,) = model.requests(one.image, [(one, model.render(one, run))], run)
    return request.image


def test_what_is_not_encoded_is_not_charged(tiled: adafv.Model) -> None:
    """Beside the whole image: fewer crops, one look at the thumbnail, and the same unpruned cost."""
    image, run = noise(112, 112), RunSettings(keep=12, pruner="saliency", tiles=1, max_new_tokens=3)
    first, second, *_ = tiled.answer(image, [ASK, ASK], run)
    whole = tiled.ask(image, ASK, replace(run, tiles="all"))
    geometry = Accountant.of(tiled.pipeline.model.config, 2, 4).vision
    assert first.flops and second.flops and whole.flops and first.tokens
    asked = tiled.render(Question(0, None, ASK), run)
    looked = flops.score(len(asked.after), 16, 48)
    assert first.flops.vision == flops.vision(geometry, 2) and whole.flops.vision == flops.vision(geometry, 5)
    assert first.flops.projector == flops.projector(geometry, 32)
    assert first.flops.score == looked and whole.flops.score == 0
    assert first.flops.unpruned_total == whole.flops.unpruned_total
    assert first.flops.prefill == whole.flops.prefill and total(first.flops) == first.flops.total
    assert second.flops.vision == 0 and second.flops.score == looked
    assert first.latency_s and first.latency_s.score > 0


def total(spent: Flops) -> int:
    return spent.vision + spent.projector + spent.score + spent.prefill + spent.decode


def test_a_sweep_charges_each_setting_as_if_it_ran_alone(tiled: adafv.Model) -> None:
    """Settings may differ in tiles; whatever one has had encoded, another pays what it wants itself."""
    base = RunSettings(keep=12, max_new_tokens=2)
    runs = [replace(base, keep="all", pruner="none"), *(replace(base, tiles=tiles) for tiles in ("auto", 1, 2)), base]
    swept = list(tiled.sweep(questions(each=6), runs, BatchSettings(batch_size=3)))
    for column, run in enumerate(runs):
        alone = list(tiled.batch(questions(each=6), run, batch_size=3))
        mine = [row[column] for row in swept]
        assert compact(mine) == compact(alone)
        assert [one.flops and one.flops.vision for one in mine] == [one.flops and one.flops.vision for one in alone]
        assert [one.setup for one in mine] == [one.setup for one in alone]


def test_a_comparison_is_with_all_tiles(tiled: adafv.Model) -> None:
    image, run = noise(112, 112), RunSettings(tiles=1, keep=8, max_new_tokens=3, compare=True)
    answer = tiled.ask(image, ASK, run)
    whole = tiled.ask(image, ASK, keep="all", pruner="none", max_new_tokens=3)
    assert answer.compare is not None and answer.compare.text == whole.text
    assert answer.tokens is not None and answer.tokens.tiles == 1


def test_crops_are_kept_on_disk_one_by_one(tiled: adafv.Model, tmp_path: Any, passes: list[int]) -> None:
    asked, batch = questions(each=1), BatchSettings(batch_size=2, encodings=str(tmp_path))
    run = RunSettings(tiles=1, max_new_tokens=3)
    first = list(tiled.stream(asked, run, batch))
    assert passes == [2, 2] and len(list(tmp_path.iterdir())) == 4
    again = list(tiled.stream(asked, run, batch))
    assert passes == [2, 2] and compact(again) == compact(first)
    assert [answer.flops and answer.flops.vision for answer in again] == [0, 0]
    more = list(tiled.stream(asked, replace(run, tiles=2), batch))
    assert passes == [2, 2, 2]  # the second tile of each image, and nothing else
    assert compact(more) == compact(list(tiled.batch(asked, replace(run, tiles=2))))
    assert sum(answer.flops.vision for answer in more if answer.flops) == first[0].flops.vision  # type: ignore[union-attr]
    whole = list(tiled.stream(asked, replace(run, tiles="all"), batch))
    assert passes[-2:] == [5, 5] and all(answer.error is None for answer in whole)


def test_a_stream_counts_what_the_tower_and_the_disk_gave(tiled: adafv.Model, tmp_path: Any) -> None:
    batch = BatchSettings(batch_size=8, encodings=str(tmp_path))
    counted = []
    for _ in range(2):
        stream = tiled.stream(questions(each=2), RunSettings(tiles=4, max_new_tokens=1), batch)
        assert len(list(stream)) == 4
        stats = stream.stats
        counted.append((stats.images_encoded, stats.cache_hits, stats.encodings_read, stats.encodings_bytes))
    kept = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert counted == [(2, 2, 0, kept), (0, 4, 10, 0)]


def test_each_setting_of_a_sweep_says_what_it_asked_for(tiled: adafv.Model) -> None:
    """Also where another takes the same tiles."""
    runs = [RunSettings(keep=12, tiles=tiles, max_new_tokens=1) for tiles in (1, 2, 3, "auto", "all", 9)]
    for row in tiled.sweep(questions(each=1), runs, BatchSettings(batch_size=3)):
        assert [one.setup.tiles if one.setup else "all" for one in row] == [str(run.tiles) for run in runs]


def test_looking_asks_the_device_once_for_a_batch(tiled: adafv.Model) -> None:
    from adafv.tiled import Tiled
    from adafv.tiling import Tiling

    run = RunSettings(tiles="auto")
    tiling = Tiling(tiled.pipeline, [run])
    images = [Tiled(str(seed), tiled.pipeline.preprocess(open_image(noise(112, 112, seed))), 0.0) for seed in range(6)]
    prompt = tiled.render(Question(0, None, ASK), run)
    tiling.encode((image, [0]) for image in images)

    def looked(count: int) -> int:
        return asked_by(lambda: tiling._ranked([(image, prompt) for image in images[:count]]))

    assert looked(6) == looked(1) == 2  # are the scores finite, and which are they


def test_a_checkpoint_without_tiles_says_so_and_does_as_before(llava: adafv.Model, image: Image.Image) -> None:
    run = RunSettings(keep=5, tiles=2, max_new_tokens=3)
    (note,) = llava.notes_on(run)
    assert note == "--tiles 2 has no effect: this checkpoint's images are one crop"
    assert llava.notes_on(RunSettings()) == ()
    answer, plain = llava.ask(image, ASK, run), llava.ask(image, ASK, replace(run, tiles="all"))
    assert (answer.text, answer.tokens, answer.flops, answer.setup) == (
        plain.text, plain.tokens, plain.flops, plain.setup
    )  # fmt: skip
    assert answer.tokens is not None and answer.tokens.tiles == 0


def test_a_checkpoint_with_tiles_has_nothing_to_say(tiled: adafv.Model) -> None:
    assert tiled.notes_on(RunSettings(tiles="auto")) == ()


@pytest.mark.parametrize("tiles", ["auto", 1, 9])
@pytest.mark.parametrize("size", [(1, 1), (20_000, 50), (5, 2_000)])
def test_images_of_any_shape_are_answered(tiled: adafv.Model, size: tuple[int, int], tiles: Any) -> None:
    answer = tiled.ask(noise(*size), ASK, tiles=tiles, max_new_tokens=2)
    assert answer.error is None and answer.tokens is not None and answer.tokens.kept == round(answer.tokens.visual / 4)


def test_a_tile_of_nothing_but_padding_is_not_encoded(tiled: adafv.Model, passes: list[int]) -> None:
    """A thin strip's tiles have no token at all."""
    tiled.ask(noise(2_000, 5), ASK, tiles="auto", max_new_tokens=1)
    assert passes == [1]


def test_tiles_of_each_question_and_tokens_of_all_contradict_each_other() -> None:
    with pytest.raises(
        InputError, match="select: image chooses among the same tokens for all questions, and tiles 2 are"
    ):
        RunSettings(select="image", tiles=2)
    assert RunSettings(select="image", tiles="all").tiles == "all"


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("tiles", [1, 2, "auto"])
def test_a_plan_says_what_an_answer_costs_at_most(tiled: adafv.Model, tiles: Any, later: bool) -> None:
    """Exactly, where tiles are of one size and their number is given."""
    run, image = RunSettings(keep=12, pruner="saliency", tiles=tiles, max_new_tokens=2), noise(112, 112)
    first, second = tiled.answer(image, [ASK, ASK], run)
    answer, prompt = (second if later else first), tiled.render(Question(0, None, ASK), run)
    config, tokens, spent = tiled.pipeline.model.config, answer.tokens, answer.flops
    assert tokens is not None and spent is not None
    lengths = PromptPlan(len(prompt.before), len(prompt.after), tokens.generated)
    plan = plan_answer(config, plan_image(config, 112, 112), run, lengths, later=later, bytes_per_value=4)
    if tiles == "auto":
        assert plan.flops.total >= spent.total and plan.tokens.tiles == 4
    elif later:
        assert plan.flops.total == spent.total  # neither is charged what is shared across a batch alone
    else:
        assert plan.flops == spent and plan.memory_bytes == answer.memory_bytes
        assert plan.tokens == tokens


def test_what_was_skipped_is_shown_as_skipped(tiled: adafv.Model) -> None:
    from adafv.figures import captions
    from adafv.figures.explanation import render

    image = noise(112, 112)
    told = tiled.explain(image, ASK, keep=12, tiles=2, max_new_tokens=1)
    encoded = [number for number, crop in enumerate(told.crops) if crop.encoded]
    assert encoded[0] == 0 and len(encoded) == 3 and len(told.crops) == 5
    assert {token.crop for token in told.tokens} == set(encoded)
    assert [len(layer) for layer in told.layers] == [16, 32] and len(told.tokens) == 48
    assert sum(token.kept for token in told.tokens) == 12
    assert [crop["encoded"] for crop in told.to_json()["crops"]] == [crop.encoded for crop in told.crops]
    for token in told.tokens:
        left, top, right, bottom = token.box or (0.0, 0.0, 0.0, 0.0)
        seen = told.crops[token.crop].frame.seen
        assert seen[0] <= left < right <= seen[2] and seen[1] <= top < bottom <= seen[3]
    assert captions.titles(told, 1)[0] == "2 of 4 tiles"
    whole = tiled.explain(image, ASK, keep=12, max_new_tokens=1)
    assert captions.titles(whole, 1)[0] == "tiles: crops 1 to 4" and all(crop.encoded for crop in whole.crops)
    drawn = render(told, "svg", dpi=50).decode()
    assert drawn.count("skipped -->") == 2 and "skipped -->" not in render(whole, "svg", dpi=50).decode()


def test_the_report_says_how_many_tiles_were_looked_at(tiled: adafv.Model) -> None:
    from adafv_cli.rendering import report

    first, second = tiled.answer(noise(112, 112), [ASK, "how many boats?"], keep=12, tiles=1, max_new_tokens=1)
    assert "1 of 4 tiles encoded; the thumbnail tells which" in report.single(first).plain
    assert "of 4 tiles each looked at: 1, 1" in report.several([first, second]).plain
    whole = tiled.ask(noise(112, 112), ASK, keep=12, max_new_tokens=1)
    assert "tiles" not in report.single(whole).plain
