"""Numbers that no model has are refused when a configuration is read, by every command, before a model is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adafv import CheckpointError
from adafv.costs.parameters import count_parameters
from adafv.loading.numbers import smallest_count
from adafv.loading.reading import read_config
from adafv.settings import LoadSettings
from tests import tiny
from tests.damages import field
from tests.published import CONFIGS

MANY = [[56 * rows, 56] for rows in range(1, 11)] * 1_000
WRONG: list[tuple[str, Any, str]] = [
    ("image_token_index", -1, "image_token_index is -1, not the id of a token"),
    ("image_token_id", -1, "image_token_index is -1, not the id of a token"),
    ("image_token_index", 3.0, "image_token_index"),
    ("image_token_index", "3", "image_token_index"),
    ("image_token_id", "3", "image_token_index is '3', not"),
    ("image_token_id", [3], "image_token_index is [3], not"),
    ("image_token_id", None, "image_token_index is None, not"),
    ("image_token_id", 2**70, f"image_token_index is {2**70}, not"),
    ("image_grid_pinpoints", [], "image_grid_pinpoints is [], not a list of 1 to 256 sizes"),
    ("image_grid_pinpoints", [[0, 0]], "image_grid_pinpoints is [0, 0], not [height, width] in multiples of 56"),
    ("image_grid_pinpoints", [[-56, 56]], "image_grid_pinpoints is [-56, 56]"),
    ("image_grid_pinpoints", [56], "image_grid_pinpoints is 56"),
    ("image_grid_pinpoints", 56, "image_grid_pinpoints"),
    ("image_grid_pinpoints", [[56, 100]], "image_grid_pinpoints is [56, 100]"),
    ("image_grid_pinpoints", [[56 * 13, 56 * 12]], "up to 144 tiles"),
    ("image_grid_pinpoints", MANY, "not a list of 1 to 256 sizes"),
    ("text_config.num_attention_heads", -4, "text_config.num_attention_heads is -4, not a whole number from 1"),
    ("text_config.num_key_value_heads", 3, "text_config.num_key_value_heads is 3, not a divisor of the 4"),
    ("text_config.num_key_value_heads", 0, "text_config.num_key_value_heads is 0"),
    ("text_config.num_hidden_layers", 10**9, "text_config.num_hidden_layers is 1000000000, not a whole number"),
    ("text_config.vocab_size", 2**70, "text_config.vocab_size"),
    ("text_config.head_dim", -12, "text_config.head_dim is -12"),
    ("text_config.rope_parameters.rope_theta", "fast", "text_config.rope_theta is 'fast'"),
    ("text_config.rope_parameters.rope_type", [], "config.json"),
    ("text_config.hidden_act", "gulp", "gulp"),
    ("text_config.sliding_window", "all", "text_config.sliding_window is 'all'"),
    ("vision_config.num_attention_heads", -4, "vision_config.num_attention_heads is -4"),
    ("vision_config.num_hidden_layers", 10**9, "vision_config.num_hidden_layers is 1000000000"),
    ("vision_config.image_size", [56, 56], "vision_config.image_size is [56, 56]"),
    ("vision_config.image_size", 10**9, "vision_config.image_size is 1000000000"),
    ("vision_config.patch_size", 57, "vision_config.patch_size is 57"),
    ("vision_config.num_channels", 4, "vision_config.num_channels is 4, not 3"),
    ("vision_config.hidden_act", "gulp", "gulp"),
    ("vision_feature_layer", 99, "config.json: vision_feature_layer 99"),
    ("dtype", "int8", "dtype is torch.int8, not a floating-point type"),
    ("dtype", 7, "dtype is 7, not a floating-point type"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_llava_next(tmp_path_factory.mktemp("whole"))


def spoiled(whole: Path, folder: Path, path: str, value: Any) -> Path:
    """A folder with a spoiled config.json and nothing else, so that nothing else can be what is refused."""
    folder.mkdir()
    shutil.copy(whole / "config.json", folder)
    field("config.json", path, value)(folder)
    return folder


@pytest.mark.parametrize(("path", "value", "what"), WRONG, ids=lambda part: str(part)[:40])
def test_wrong_numbers(path: str, value: Any, what: str, whole: Path, tmp_path: Path) -> None:
    folder = spoiled(whole, tmp_path / "wrong", path, value)
    with pytest.raises(CheckpointError) as caught:
        read_config(LoadSettings(str(folder)))
    assert what in caught.value.what
    assert str(folder) in caught.value.what and "config.json" in caught.value.what
    assert len(caught.value.what) < 500
    assert caught.value.fix


def test_the_original_format_s_marker_is_named(whole: Path, tmp_path: Path) -> None:
    """As the first conversions of LLaVA-1.5 have it."""
    folder = spoiled(whole, tmp_path / "early", "image_token_index", -200)
    with pytest.raises(CheckpointError, match="-200, which marks images in LLaVA's original format") as caught:
        read_config(LoadSettings(str(folder)))
    assert caught.value.fix == "use a newer conversion, for example llava-hf/llava-1.5-7b-hf"


def test_an_attention_kernel_in_the_file_is_not_used(whole: Path, tmp_path: Path) -> None:
    folder = spoiled(whole, tmp_path / "flash", "_attn_implementation", "flash_attention_2")
    assert read_config(LoadSettings(str(folder), attention="eager")).text_config._attn_implementation == "eager"


@pytest.mark.parametrize("name", CONFIGS)
def test_published_numbers_pass(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    config = read_config(LoadSettings(str(tmp_path)))
    exact, _ = count_parameters(config)
    assert 0.6 * exact.total < smallest_count(config) <= exact.total
