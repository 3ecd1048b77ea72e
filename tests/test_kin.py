"""LLaVA's kin: features of several vision layers, and towers for which saliency is not defined."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import (
    LlavaOnevisionConfig,
    SiglipVisionConfig,
)

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


def test_towers_without_cls_are_refused(tmp_path: Path) -> None:
    """Their saliency would be another quantity: nothing here is tested for it."""
    siglip = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=56, patch_size=14
    )
    tiny.save_llava(tmp_path / "siglip", vision_config=siglip)
    with pytest.raises(CheckpointError, match=r"siglip_vision_model tower.*\[CLS\]"):
        adafv.load(str(tmp_path / "siglip"))
    tiny.save_llava(tmp_path / "full", vision_feature_select_strategy="full")
    with pytest.raises(CheckpointError, match=r"strategy 'full'.*\[CLS\] token that is then dropped"):
        adafv.load(str(tmp_path / "full"))
    onevision = tiny.save_llava(tmp_path / "onevision")
    LlavaOnevisionConfig().save_pretrained(onevision)
    with pytest.raises(CheckpointError, match="of the type 'llava_onevision'"):
        adafv.load(str(onevision))
