"""LLaVA-OneVision at any aspect ratio: unpruned it is the stock model, and a token is where it is said to be.

Crops are 60 pixels wide and patches 14, as published ones are 384 and 14: some pixels of each tile are in no patch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

import adafv
from adafv.costs.plan import plan_image
from adafv.errors import CheckpointError, InputError
from adafv.explanation import Explanation
from adafv.families.geometry import Box
from adafv.figures import rasters
from adafv.figures.explanation import render
from adafv.pruners import BUILT_IN
from tests import spoiling, tiny
from tests.cli_fakes import Result
from tests.cli_fakes import adafv as adafv_command
from tests.conftest import noise
from tests.stock import Stock, encoded, run

TILE = 60  # 4 x 4 patches, and 4 pixels that are in none
QUESTION = "what color is the sign?"
TEXT = f"USER: <image>\n{QUESTION} ASSISTANT:"
WHOLE = [  # width, height; of mosaics that are fed as they are
    (60, 60), (56, 57), (60, 120), (120, 60), (100, 44), (30, 20), (1, 1), (61, 58), (180, 40), (800, 40), (40, 800),
    (400, 3), (3, 400),
]  # fmt: skip
INTERPOLATED = [
    (120, 120), (240, 240), (640, 480), (480, 640), (250, 170), (97, 240), (160, 110), (1000, 700), (200, 130),
    (110, 230),
]  # fmt: skip
SIZES = WHOLE + INTERPOLATED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tower = tiny.siglip(image_size=TILE)["vision_config"]
    return tiny.save_llava_onevision(tmp_path_factory.mktemp("onevision"), vision_config=tower)


@pytest.fixture(scope="module")
def model(folder: Path) -> adafv.Model:
    return adafv.load(str(folder), dtype="float32", device_map="cpu")


@pytest.fixture(scope="module")
def stock(folder: Path) -> Stock:
    return Stock.load(folder)


def explained(model: adafv.Model, image: Image.Image, **settings: Any) -> Explanation:
    return model.explain(image, QUESTION, **dict(keep=9, max_new_tokens=1) | settings)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_keep_all_equals_stock(model: adafv.Model, stock: Stock, size: tuple[int, int]) -> None:
    image = noise(*size)
    (encoding,) = encoded(model, image)
    assert (encoding.packed - stock.visual(image, TEXT)).abs().max() < 1e-5
    logits, (outcome,) = run(model, (image, QUESTION), keep="all", max_new_tokens=4)
    assert (logits - stock.logits(image, TEXT)).abs().max() < 1e-5
    assert outcome.decoded.ids == stock.generated(image, TEXT, 4)
    placeholders = stock.inputs(image, TEXT)["input_ids"][0].tolist().count(3)
    plan = plan_image(stock.model.config, *size[::-1])
    assert len(outcome.kept.tokens) == encoding.visual + encoding.newlines == placeholders == plan.packed
    assert (plan.visual, plan.crops, plan.grids) == (encoding.visual, encoding.crops, encoding.grids)
    assert sum(rows * columns for rows, columns in plan.grids) == plan.visual


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_saliency_and_features_are_interpolated_as_the_tokens_are(
    model: adafv.Model, stock: Stock, size: tuple[int, int]
) -> None:
    image = noise(*size)
    (encoding,) = encoded(model, image)
    received = stock.saliency(image, TEXT, 3)
    assert received.shape == (encoding.crops, 16) and (received.sum(dim=1) - 1).abs().max() < 1e-6
    assert (encoding.saliency[:16] - received[0]).abs().max() < 1e-6
    projected = stock.model.model.multi_modal_projector
    if len(encoding.grids) > 1 and size in WHOLE:  # a projector is not linear: it does not go with interpolation
        assert (projected(encoding.features) - encoding.tokens).abs().max() < 1e-5
    if size in INTERPOLATED and size[0] == size[1]:  # nothing is unpadded
        side = round((encoding.crops - 1) ** 0.5)
        mosaic = received[1:].view(side, side, 4, 4).permute(0, 2, 1, 3).reshape(1, 1, 4 * side, 4 * side)
        wanted = interpolate(mosaic, encoding.grids[1], mode="bilinear").flatten()
        assert (encoding.saliency[16:] - wanted).abs().max() < 1e-6
    told = explained(model, image)
    assert told.saliency == "attention received"


def test_mosaics_are_interpolated_down_to_the_size_that_is_allowed(model: adafv.Model) -> None:
    """Two tiles of 4 x 4 patches, or a tenth more along either side."""
    for size in SIZES:
        (encoding,) = encoded(model, noise(*size))
        mosaic = encoding.visual - 16
        tiles = 16 * (encoding.crops - 1)
        assert (mosaic <= 32) if size in INTERPOLATED else (mosaic <= 1.21 * 32)
        assert size in WHOLE or mosaic < tiles


def middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tokens_tile_the_layer_and_their_cells_hold_their_middles(model: adafv.Model, size: tuple[int, int]) -> None:
    told = explained(model, noise(*size))
    assert len(told.tokens) == sum(rows * columns for rows, columns in told.grids)
    for numbers, (rows, columns) in zip(told.layers, told.grids, strict=True):
        grid = np.array([told.tokens[number].box or (np.nan,) * 4 for number in numbers]).reshape(rows, columns, 4)
        left, top, right, bottom = np.moveaxis(grid, -1, 0)
        assert ((left < right) & (top < bottom)).all()
        assert (left >= 0).all() and (top >= 0).all() and (right <= size[0]).all() and (bottom <= size[1]).all()
        # Between tiles lie pixels that are in no patch, never more than those of one tile.
        gap = max(frame.across for frame in (crop.frame for crop in told.crops)) * (TILE - 56) + 1e-6
        down = max(crop.frame.down for crop in told.crops) * (TILE - 56) + 1e-6
        assert ((left[:, 1:] - right[:, :-1] > -1e-6) & (left[:, 1:] - right[:, :-1] < gap)).all()
        assert ((top[1:] - bottom[:-1] > -1e-6) & (top[1:] - bottom[:-1] < down)).all()
    for token in told.tokens:
        frame = told.crops[token.crop].frame
        cell = frame.cell(token.cell, 4, 14)
        assert token.box is not None and cell is not None
        if token.crop == 0 or size in WHOLE:
            assert token.box == pytest.approx(cell)
        else:  # the middle of a box that reaches over a seam may lie in the pixels that are in no patch
            x, y = middle(token.box)
            slack_x, slack_y = 4 * frame.across + 1e-6, 4 * frame.down + 1e-6
            assert cell[0] - slack_x <= x <= cell[2] + slack_x or token.box[0] == 0 or token.box[2] == size[0]
            assert cell[1] - slack_y <= y <= cell[3] + slack_y or token.box[1] == 0 or token.box[3] == size[1]


@pytest.mark.parametrize("size", [size for size in SIZES if min(size) >= 20], ids=str)  # a gradient needs some pixels
def test_boxes_are_where_the_pixels_come_from(folder: Path, size: tuple[int, int]) -> None:
    """Through a tower of glass: what comes out of it for a patch is the mean colour of its own pixels."""
    glass = adafv.load(str(folder), dtype="float32", device_map="cpu")
    stages: Any = glass.pipeline.stages
    images = glass._checkpoint.processor.image_processor

    def see(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (images.image_mean, images.image_std))
        patches = torch.nn.functional.avg_pool2d(values.float() * std + mean, 14)
        colours = patches.flatten(2).transpose(1, 2)
        return torch.nn.functional.pad(colours, (0, 45)), colours[..., 0].clamp(min=0), colours

    stages._vision_features, stages._projector = see, lambda features: features
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 1] = np.linspace(0, 255, width)[None]
    pixels[..., 2] = np.linspace(0, 255, height)[:, None]
    (encoding,) = encoded(glass, Image.fromarray(pixels))
    looked = encoding.tokens[:, 1:3]
    for box, colour in zip(glass.pipeline.stages.boxes(size[::-1], encoding), looked, strict=True):
        assert box is not None
        at, half = middle(box), ((box[2] - box[0]) / 2, (box[3] - box[1]) / 2)
        if box[0] > 0 and box[2] < width and box[1] > 0 and box[3] < height:  # at the edge there may be padding
            for place, reach, length, value in zip(at, half, size, colour.tolist(), strict=True):
                assert abs(place / length - value) < 0.35 * reach / length + 0.02
    assert encoding.features.shape == (encoding.visual, 48) and torch.equal(encoding.features, encoding.tokens)


def test_batch_of_mixed_sizes_equals_singles(model: adafv.Model) -> None:
    asked = [(noise(*size, seed=i), QUESTION if i % 2 else "how many?") for i, size in enumerate(INTERPOLATED[:4])]
    for keep in ("all", 9):
        together, outcomes = run(model, *asked, keep=keep, max_new_tokens=2)
        for row, one in enumerate(asked):
            alone, (outcome,) = run(model, one, keep=keep, max_new_tokens=2)
            assert (alone[0] - together[row]).abs().max() < 5e-6
            assert torch.equal(outcome.kept.places, outcomes[row].kept.places)


@pytest.mark.parametrize("pruner", BUILT_IN)
def test_every_pruner_keeps_exactly_the_budget(model: adafv.Model, pruner: str) -> None:
    answer = model.ask(noise(250, 170), QUESTION, keep=11, pruner=pruner, max_new_tokens=1)
    assert answer.tokens is not None
    assert answer.tokens.kept == (11 if pruner != "none" else answer.tokens.visual)


@pytest.mark.parametrize("value", ["anyres", "anyres_max_0", "anyres_max_9x", "pad", ""])
def test_a_size_of_mosaics_that_cannot_be_read_is_refused(tmp_path: Path, value: str) -> None:
    tiny.save_llava_onevision(tmp_path, vision_aspect_ratio=value)
    with pytest.raises(CheckpointError, match=f"config.json: vision_aspect_ratio '{value}' is not of the form"):
        adafv.load(str(tmp_path))


def test_a_video_is_refused(model: adafv.Model, llava: adafv.Model) -> None:
    with pytest.raises(InputError, match="contains the video placeholder <video>") as caught:
        model.ask(noise(60, 60), "<video> what happens?", keep=5)
    assert "one image each" in caught.value.fix
    with pytest.raises(InputError, match="contains the image placeholder"):
        model.ask(noise(60, 60), "what is in <image> and in this?", keep=5)
    assert llava.ask(noise(60, 60), "what does <video> mean in HTML?", keep=5, max_new_tokens=1).error is None


def test_files_of_another_size_are_refused(tmp_path: Path) -> None:
    tiny.save_llava_onevision(tmp_path)
    spoiling.part("vision_config", image_size=70)(tmp_path)
    with pytest.raises(CheckpointError):
        adafv.load(str(tmp_path))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_token_over_a_seam_is_drawn_from_either_tile(model: adafv.Model, layer: int) -> None:
    """At this size the mosaic's pixels are the image's, so that the panel is the image wherever there is a token."""
    told = explained(model, noise(240, 240))
    owners = rasters.places(told, told.layers[layer], (240, 240))
    drawn = rasters.crops(told, owners)
    far = np.abs(drawn.astype(int) - np.asarray(told.image))[owners >= 0]
    assert far.mean() < 1 if layer else far.mean() < 8
    assert far.max() < 12 if layer else far.max() < 60
    assert len(render(told, dpi=60)) > 1000


def test_info_dry_run_batch_sweep_and_show(folder: Path, tmp_path: Path) -> None:
    told = command("info", folder, "--image", "240x240").stdout
    assert "siglip, 3 layers of which 3 run" in told and "one of 16 mosaics of up to 4x4 tiles" in told
    assert "17 crops, 41 visual tokens" in told and "thumbnail 4 x 4, mosaic 5 x 5; 5 newlines" in told
    assert max(map(len, told.splitlines())) <= 80 + len(str(folder))
    noise(240, 240).save(tmp_path / "a.png")
    lines = [{"question_id": number, "image": "a.png", "text": "is there a red car?"} for number in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("-m", folder, "--dtype", "float32", "-q")
    dry = command("batch", tmp_path / "in.jsonl", "--dry-run", *flags, "--json")
    assert json.loads(dry.stdout)["tokens"]["visual"] == 3 * 41
    answers = command("batch", tmp_path / "in.jsonl", *flags, "--keep", "9", "--max-new-tokens", "2")
    assert [json.loads(line)["tokens"]["kept"] for line in answers.stdout.splitlines()] == [9, 9, 9]
    swept = command("sweep", tmp_path / "in.jsonl", *flags, "--keep", "9,25%", "--max-new-tokens", "2")
    assert swept.code == 0 and len(swept.stdout.splitlines()) == 3
    shown = command(
        "show",
        tmp_path / "a.png",
        "is there a car?",
        *flags,
        "--max-new-tokens",
        "2",
        "--json",
        "-o",
        tmp_path / "s.svg",
    )
    tokens = json.loads(shown.stdout)["visual_tokens"]
    assert len(tokens["box"]) == 41 and (tmp_path / "s.svg").stat().st_size > 1000


def command(*args: object) -> Result:
    result = adafv_command(*map(str, args))
    assert result.code == 0, result.stderr
    return result
