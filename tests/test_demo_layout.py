"""The demo is laid out as published checkpoints are, and so is what the recipe writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from adafv.demo import CHECKPOINT
from recipe.layout import as_published
from tests import tiny

PUBLISHED = ("language_model.model.", "language_model.lm_head.", "multi_modal_projector.", "vision_tower.vision_model.")


@pytest.fixture(params=["demo", "rewritten"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The bundled checkpoint, and one as transformers saves it, laid out anew."""
    if request.param == "demo":
        return CHECKPOINT
    as_published(tiny.save("llava", tmp_path))
    return tmp_path


def test_tensors_have_the_published_names(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert all(name.startswith(PUBLISHED) for name in file.keys())  # noqa: SIM118 - no mapping
        assert file.metadata() == {"format": "pt"}


def test_the_tokenizer_is_of_a_class_that_every_transformers_has(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    assert not {"backend", "extra_special_tokens"} & settings.keys()


def test_it_is_done_once(tmp_path: Path) -> None:
    as_published(tiny.save("llava", tmp_path))
    once = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    as_published(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == once
