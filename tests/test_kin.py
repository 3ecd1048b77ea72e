"""LLaVA's kin: features of several vision layers, SigLIP towers, and towers for which saliency is not defined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import adafv
from adafv.errors import CheckpointError
from tests import tiny
from tests.conftest import noise
from tests.stock import Stock, encoded, run

QUESTION = "what color is the sign?"
TEXT = f"USER: <image>\n{QUESTION} ASSISTANT:"


@pytest.mark.parametrize(
    ("kind", "layers", "deepest"),
    [
        ("vipllava", [-2, -5, 1], 5),
        ("vipllava", -2, 5),
        ("vipllava", [6, 0], 6),
        ("llava", [-3, -2], 5),
        ("llava", [2, 4], 4),
        ("llava", 3, 3),
        ("llava_next", [-2, 1, 1], 5),
    ],
    ids=str,
)
def test_features_of_any_layers_equal_stock(tmp_path: Path, kind: str, layers: int | list[int], deepest: int) -> None:
    """Of 6 layers; saliency is the deepest one's."""
    tiny.save(kind, tmp_path, vision_feature_layer=layers, vision_config=tiny.vision_config(num_hidden_layers=6))
    model = adafv.load(str(tmp_path), dtype="float32", device_map="cpu")
    stock = Stock.load(tmp_path)
    image = noise(80, 56)
    (encoding,) = encoded(model, image)
    assert (encoding.packed - stock.visual(image, TEXT)).abs().max() < 1e-5
    logits, (outcome,) = run(model, (image, QUESTION), keep="all", max_new_tokens=6)
    assert (logits - stock.logits(image, TEXT)).abs().max() < 1e-5
    assert outcome.decoded.ids == stock.generated(image, TEXT, 6)
    assert len(model._checkpoint.model.model.vision_tower.encoder.layers) == deepest
    assert (encoding.saliency[: tiny.PATCHES] - stock.saliency(image, TEXT, deepest)[0]).abs().max() < 1e-6
    assert model.ask(image, QUESTION, keep=5, max_new_tokens=1).tokens.kept == 5  # type: ignore[union-attr]


@pytest.mark.parametrize("layers", [[], [-8], [0], 7, 0, [9, 1]], ids=str)
def test_layers_that_are_not_there_are_refused(tmp_path: Path, layers: int | list[int]) -> None:
    tiny.save("llava", tmp_path, vision_config=tiny.vision_config(num_hidden_layers=6))
    config = (tmp_path / "config.json").read_text()
    config = config.replace('"vision_feature_layer": -2', f'"vision_feature_layer": {layers}')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=r"is not the output of one of the tower's 6 layers"):
        adafv.load(str(tmp_path))


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
@pytest.mark.parametrize(("layer", "deepest"), [(-1, 3), (-2, 2), ([1, -1], 3)], ids=str)
@pytest.mark.parametrize("head", [False, True])
def test_siglip_towers_equal_stock(tmp_path: Path, kind: str, layer: int | list[int], deepest: int, head: bool) -> None:
    """Every patch is fed, before the tower's final norm; saliency is what a patch receives in the deepest layer."""
    changes = tiny.siglip(vision_use_head=head) | dict(vision_feature_layer=layer)
    images = dict(images=tiny.siglip_image_processor()) if kind == "llava" else {}
    tiny.save(kind, tmp_path, **changes, **images)
    model, stock = adafv.load(str(tmp_path), dtype="float32", device_map="cpu"), Stock.load(tmp_path)
    image = noise(80, 56)
    (encoding,) = encoded(model, image)
    assert (encoding.packed - stock.visual(image, TEXT)).abs().max() < 1e-5
    logits, (outcome,) = run(model, (image, QUESTION), keep="all", max_new_tokens=6)
    assert (logits - stock.logits(image, TEXT)).abs().max() < 1e-5
    assert outcome.decoded.ids == stock.generated(image, TEXT, 6)
    assert len(model._checkpoint.model.model.vision_tower.encoder.layers) == deepest
    assert (encoding.saliency[: tiny.PATCHES] - stock.saliency(image, TEXT, deepest)[0]).abs().max() < 1e-6
    told = model.explain(image, QUESTION, keep=5, max_new_tokens=1)
    assert told.answer.tokens is not None and told.answer.tokens.kept == 5


def test_towers_for_which_saliency_is_not_defined_are_refused(tmp_path: Path) -> None:
    """[CLS] would be fed as a patch, or a patch dropped as [CLS]; of other towers nothing is known here."""
    tiny.save_llava(tmp_path / "full", vision_feature_select_strategy="full")
    with pytest.raises(CheckpointError, match=r"'full' with a clip_vision_model would feed \[CLS\]"):
        adafv.load(str(tmp_path / "full"))
    tiny.save_llava(tmp_path / "siglip", **tiny.siglip() | dict(vision_feature_select_strategy="default"))
    with pytest.raises(CheckpointError, match="'default' with a siglip_vision_model would drop a patch"):
        adafv.load(str(tmp_path / "siglip"))
    config = json.loads((tmp_path / "full" / "config.json").read_text())
    config["vision_config"]["model_type"] = "siglip2_vision_model"
    (tmp_path / "full" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"saliency is not defined for .* 'siglip2_vision_model'"):
        adafv.load(str(tmp_path / "full"))
