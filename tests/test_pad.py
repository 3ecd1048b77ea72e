"""Padding to a square, as LLaVA's own code does it: the same pixels, the same answers, and every token in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaImageProcessorPil

import adafv
from adafv import ImageError, InputError
from adafv.images import square
from adafv.records import Answer
from adafv.setup import Setup
from tests import tiny
from tests.cli_fakes import adafv as command
from tests.conftest import noise
from tests.published import CLIP_PREPROCESSOR
from tests.spying import listening
from tests.stock import Stock, encoded
from tests.test_llava_next_places import MARKED, marked

SIZES = [
    (640, 480), (480, 640), (333, 500), (500, 333), (1024, 768), (337, 336), (336, 337), (336, 336), (61, 97), (97, 62),
    (900, 301), (15, 200), (1, 40),
]  # fmt: skip
QUESTION = "what color is the sign?"


def expand2square(pil_img: Image.Image, background_color: tuple[int, ...]) -> Image.Image:
    """Of LLaVA's `mm_utils.py` (Apache-2.0), whose caller gives `tuple(int(x * 255) for x in image_mean)`."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    elif width > height:
        result = Image.new(pil_img.mode, (width, width), background_color)
        result.paste(pil_img, (0, (width - height) // 2))
        return result
    else:
        result = Image.new(pil_img.mode, (height, height), background_color)
        result.paste(pil_img, ((height - width) // 2, 0))
        return result


@pytest.fixture(scope="module")
def padding(tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    """A checkpoint whose preprocessor file asks for padding."""
    images = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": tiny.IMAGE}, crop_size={"height": tiny.IMAGE, "width": tiny.IMAGE}
    )
    return adafv.load(str(tiny.save_llava(tmp_path_factory.mktemp("pad"), images=images)), dtype="float32")


@pytest.fixture(scope="module")
def glass(tmp_path_factory: pytest.TempPathFactory) -> adafv.Model:
    """What comes out of the tower for a patch is the mean colour of its own pixels; red is salient."""
    edge, side = {"shortest_edge": 168}, {"height": 168, "width": 168}
    images = CLIPImageProcessorPil(size=edge, crop_size=side)
    folder = tiny.save_llava(
        tmp_path_factory.mktemp("glass"), images=images, vision_config=tiny.vision_config(image_size=168)
    )
    model = adafv.load(str(folder), dtype="float32", device_map="cpu")
    stages: Any = model.pipeline.stages

    def see(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (images.image_mean, images.image_std))
        colours = torch.nn.functional.avg_pool2d(values.float() * std + mean, tiny.PATCH).flatten(2).transpose(1, 2)
        return torch.nn.functional.pad(colours, (0, 45)), colours[..., 0].clamp(min=0), colours

    stages._vision_features, stages._projector = see, lambda features: features
    return model


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_pixels_are_those_of_llava_s_own_code(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    published, image = CLIPImageProcessorPil(**CLIP_PREPROCESSOR), noise(*size)
    background = tuple(int(x * 255) for x in published.image_mean)
    assert background == (122, 116, 104)
    padded = expand2square(image, background)
    assert square(image, background).tobytes() == padded.tobytes()
    ours = llava.pipeline.preprocess(image, adafv.RunSettings(pad=True)).values
    stock = llava._checkpoint.processor.image_processor(images=padded, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours, stock)
    monkeypatch.setattr(llava.pipeline.stages, "_processor", type("", (), {"image_processor": published}))
    monkeypatch.setattr(llava.pipeline.stages._vision, "image_size", 336)
    ours = llava.pipeline.preprocess(image, adafv.RunSettings(pad=True)).values
    assert torch.equal(ours, published(images=padded, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("size", SIZES[:4], ids=str)
def test_a_preprocessor_that_pads_does_so_unless_it_is_told_not_to(padding: adafv.Model, size: tuple[int, int]) -> None:
    image, images = noise(*size), padding._checkpoint.processor.image_processor
    for pad in (None, True):
        ours = padding.pipeline.preprocess(image, adafv.RunSettings(pad=pad)).values
        assert torch.equal(ours, images(images=image, return_tensors="pt")["pixel_values"])
    ours = padding.pipeline.preprocess(image, adafv.RunSettings(pad=False)).values
    assert torch.equal(ours, images(images=image, do_pad=False, return_tensors="pt")["pixel_values"])
    asked = padding.ask(image, QUESTION, max_new_tokens=1)
    assert asked.setup is not None and asked.setup.pad


@pytest.mark.parametrize("size", [(90, 50), (50, 90)], ids=str)
def test_answers_are_those_of_stock_fed_with_those_pixels(
    llava: adafv.Model, llava_folder: Path, size: tuple[int, int]
) -> None:
    stock, image = Stock.load(llava_folder), noise(*size)
    background = tuple(int(x * 255) for x in stock.processor.image_processor.image_mean)
    prompt = llava.render(adafv.Question(0, None, QUESTION), adafv.RunSettings()).text
    wanted = stock.generated(expand2square(image, background), prompt, 12)
    padded, plain = (stock.logits(taken, prompt) for taken in (expand2square(image, background), image))
    assert (padded - plain).abs().max() > 1e-3
    text = llava._checkpoint.processor.tokenizer.decode(wanted, skip_special_tokens=True).strip()
    wrapped = adafv.wrap(stock.model, stock.processor)
    settings: dict[str, Any] = dict(keep="all", pad=True, max_new_tokens=12)
    asked = adafv.Question(0, image, QUESTION)
    for model in (llava, wrapped):
        ways: list[Callable[[], Answer]] = [
            lambda model=model: model.ask(image, QUESTION, **settings),
            lambda model=model: model.explain(image, QUESTION, **settings).answer,
            lambda model=model: next(model.batch([asked], **settings)),
            lambda model=model: next(model.sweep([asked], [adafv.RunSettings(**settings)]))[0],
        ]
        for way in ways:
            with listening(model) as heard:
                answer = way()
            assert (heard.logits[0] - padded).abs().max() < 1e-5
            assert answer.text == text and answer.setup == Setup(pad=True)


@pytest.mark.parametrize(("size", "box"), MARKED, ids=str)
def test_kept_tokens_come_from_the_pixels_they_are_chosen_for(
    glass: adafv.Model, size: tuple[int, int], box: tuple[float, ...]
) -> None:
    told = glass.explain(marked(*size, box), QUESTION, keep=4, pruner="saliency", pad=True, max_new_tokens=1)
    kept = [token.box for token in told.tokens if token.kept]
    margin = max(size) / 12  # of one token
    for left, top, right, bottom in filter(None, kept):
        assert left > box[0] * size[0] - margin and right < box[2] * size[0] + margin
        assert top > box[1] * size[1] - margin and bottom < box[3] * size[1] + margin
    assert None not in kept


@pytest.mark.parametrize("size", SIZES[:11], ids=str)
def test_the_tokens_tile_the_whole_image(llava: adafv.Model, size: tuple[int, int]) -> None:
    told = llava.explain(noise(*size), QUESTION, keep=3, pad=True, max_new_tokens=1)
    boxes = np.array([token.box for token in told.tokens if token.box is not None])
    assert boxes[:, :2].min(axis=0).tolist() == [0, 0]
    assert boxes[:, 2:].max(axis=0) == pytest.approx(size)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    assert areas.sum() == pytest.approx(size[0] * size[1])
    assert told.crops[0].frame.seen == pytest.approx((0, 0, *size))
    # In the padded image every token is a whole one.
    side, drawn = max(size), told.padded()
    assert drawn.image.size == (side, side)
    sides = np.array([token.box for token in drawn.tokens])
    assert np.allclose(sides[:, 2:] - sides[:, :2], side / tiny.SIDE)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    for whole, own in zip(drawn.tokens, told.tokens, strict=True):
        if own.box is not None:
            assert whole.box is not None and whole.box[0] <= own.box[0] + left + 1e-6
            assert whole.box[3] >= own.box[3] + top - 1e-6
    picture = np.asarray(drawn.crops[0].picture.resize((side, side)), dtype=int)
    assert np.abs(picture - np.asarray(drawn.image)).mean() < (3 if side < 100 else 12)


def test_encodings_know_the_difference(llava: adafv.Model) -> None:
    image = noise(90, 50)
    (plain,) = encoded(llava, image)
    (padded,) = encoded(llava, square(image, (122, 116, 104)))
    encoding, _ = llava.encode(image, adafv.RunSettings(pad=True))
    assert torch.equal(encoding.packed, padded.packed) and not torch.equal(encoding.packed, plain.packed)


def test_tiles_are_not_padded(tiled: adafv.Model) -> None:
    asked = [adafv.Question(0, noise(90, 50), QUESTION)]
    with pytest.raises(InputError, match="thumbnail and tiles"):
        tiled.ask(noise(90, 50), QUESTION, pad=True)
    with pytest.raises(InputError, match="thumbnail and tiles"):
        tiled.batch(asked, pad=True)
    for settings in (dict(pad=False), dict(protocol="published")):
        plain, same = (tiled.ask(noise(90, 50), QUESTION, max_new_tokens=4, **more) for more in ({}, settings))
        assert same.text == plain.text


def test_an_image_too_long_to_be_padded_is_refused(llava: adafv.Model) -> None:
    with pytest.raises(ImageError, match="12000 x 3 is too large to be padded") as caught:
        llava.ask(Image.new("RGB", (12_000, 3)), QUESTION, pad=True)
    assert "--pad" in caught.value.fix
    with pytest.raises(InputError, match="pad: 1 is neither true nor false"):
        adafv.RunSettings(pad=1)  # type: ignore[arg-type]


def test_the_command_line_says_that_it_padded(tmp_path: Path, llava_folder: Path) -> None:
    noise(90, 50).save(tmp_path / "a.png")
    flags = ["-m", str(llava_folder), "--dtype", "float32", "--max-new-tokens", "2"]
    done = command("ask", str(tmp_path / "a.png"), QUESTION, "--pad", "--json", *flags)
    assert json.loads(done.stdout)["setup"] == {
        "protocol": None,
        "pad": True,
        "system": None,
        "crop_budget": "joint",
        "tiles": "all",
    }
    assert (
        "asked with     image padded to a square"
        in command("ask", str(tmp_path / "a.png"), QUESTION, "--pad", *flags).stderr
    )
    plain = command("ask", str(tmp_path / "a.png"), QUESTION, "--json", *flags)
    assert "setup" not in json.loads(plain.stdout)


def test_tiles_are_not_padded_on_the_command_line_either(tmp_path: Path) -> None:
    noise(90, 50).save(tmp_path / "a.png")
    folder = tiny.save_llava_next(tmp_path / "next")
    done = command("ask", str(tmp_path / "a.png"), QUESTION, "--pad", "-m", str(folder))
    assert done.code == 2 and "--pad: this checkpoint cuts an image" in done.stderr
