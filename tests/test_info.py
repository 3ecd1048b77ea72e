"""`adafv info`: what it counts, what it prints, and that it never looks for weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adafv.costs.parameters import count_parameters
from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.reading import read_config
from adafv.settings import LoadSettings
from tests.cli_fakes import Result, adafv
from tests.families import reduced
from tests.published import CONFIGS
from tests.test_cli_help import light_help
from tests.test_plan import expanded, random_sizes

# Billions, as the checkpoints' pages round them.
PUBLISHED = {
    "llava-1.5-7b": 7.06, "llava-1.5-13b": 13.35, "llava-v1.6-vicuna-7b": 7.06, "llava-v1.6-vicuna-13b": 13.35,
    "llava-v1.6-mistral-7b": 7.57, "llava-v1.6-34b": 34.75,
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADAFV_MODEL", "ADAFV_KEEP", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """LLaVA-NeXT 34B: config.json and nothing else."""
    return written(tmp_path / "34b", CONFIGS["llava-v1.6-34b"])


def written(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def found(*args: object) -> dict[str, Any]:
    """What `info ARGS --json` prints, which is one line."""
    result = adafv("info", *map(str, args), "--json")
    assert (result.code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name: str, tmp_path: Path) -> None:
    count = found(written(tmp_path / name, CONFIGS[name]))["parameters"]
    assert round(count["total"] / 1e9, 2) == PUBLISHED[name]
    assert sum(part for key, part in count.items() if key != "total") == count["total"]
    assert count["vision_tower"] == 303_507_456  # CLIP ViT-L/14 at 336 pixels


def test_parameters_of_llava_7b_to_the_last_one(tmp_path: Path) -> None:
    count = found(written(tmp_path / "7b", CONFIGS["llava-1.5-7b"]))["parameters"]
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert count["language_model"] == 32 * layer + 32064 * 4096 + 4096
    assert count["lm_head"] == 32064 * 4096
    assert count["multi_modal_projector"] == 1024 * 4096 + 4096 + 4096**2 + 4096


def test_tokens_are_what_the_processor_expands(tmp_path: Path) -> None:
    small = written(tmp_path / "next", reduced(CONFIGS["llava-v1.6-vicuna-7b"]))
    for width, height in random_sizes(50, 1200):
        image = found(small, "--image", f"{width}x{height}")["image"]
        assert (image["visual"] + image["newlines"], image["crops"]) == expanded(width, height), (width, height)


def test_what_json_says_of_the_34b(folder: Path) -> None:
    one = found(folder, "--image", "640x480", "--keep", "10%")
    assert list(one) == [
        "model", "family", "dtype", "text_config", "vision_config", "vision_feature_layer", "image_grid_pinpoints",
        "parameters", "weights_bytes", "kv_cache_bytes_per_token", "prompts", "image", "costs", "tiles",
    ]  # fmt: skip
    assert [(cost["tiles"], cost["tokens"]["tiles"], cost["tokens"]["kept"]) for cost in one["tiles"]] == [
        (count, count, 230) for count in (1, 2, 3, 4)
    ]  # fmt: skip
    vision = [cost["flops"]["vision"] for cost in one["tiles"]]
    assert [5 * spent for spent in vision] == [(1 + count) * vision[3] for count in (1, 2, 3, 4)]
    assert one["tiles"][3]["flops"] == one["costs"][3]["flops"]  # with all of them
    assert (one["model"], one["family"], one["dtype"]) == (str(folder), "llava_next", "float16")
    assert one["prompts"] is None  # there is no tokenizer
    assert one["text_config"] == {
        "model_type": "llama", "hidden_size": 7168, "intermediate_size": 20480, "num_hidden_layers": 60,
        "num_attention_heads": 56, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 64064,
        "rope_theta": 5e6, "max_position_embeddings": 4096,
    }  # fmt: skip
    assert one["vision_config"] == {
        "model_type": "clip_vision_model", "image_size": 336, "patch_size": 14, "hidden_size": 1024,
        "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "layers_run": 23,
    }  # fmt: skip
    assert one["image"] == {
        "width": 640, "height": 480, "crops": 5, "visual": 2304, "newlines": 36, "grids": [[24, 24], [36, 48]],
        "crop_sizes": [576, 432, 432, 432, 432],
    }  # fmt: skip
    assert one["kv_cache_bytes_per_token"] == 2 * 60 * 8 * 128 * 2
    assert [(cost["keep"], cost["tokens"]["kept"]) for cost in one["costs"]] == [
        ("all", 2304), ("50%", 1152), ("25%", 576), ("10%", 230), ("128", 128), ("64", 64),
    ]  # fmt: skip
    dense, half = one["costs"][:2]
    assert (dense["tokens"]["newlines"], dense["speedup_bound"]) == (36, 1)
    assert half["tokens"]["newlines"] == 0
    assert half["speedup_bound"] == pytest.approx(dense["flops"]["total"] / half["flops"]["total"], abs=1e-4)
    assert half["memory_bytes"]["unpruned_kv_cache"] == dense["memory_bytes"]["kv_cache"] == 245760 * (2340 + 64 + 15)


def test_budgets_that_keep_the_same_are_one_line(tmp_path: Path) -> None:
    seven = written(tmp_path / "7b", CONFIGS["llava-1.5-7b"])
    assert [cost["keep"] for cost in found(seven, "-k", "144")["costs"]] == ["all", "50%", "144", "128", "64"]
    assert [cost["keep"] for cost in found(seven, "-k", "9999")["costs"]] == ["all", "50%", "25%", "128", "64"]


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_weights_take_what_is_said(llava_folder: Path, quantize: str | None) -> None:
    """Also that quantisation leaves everything but the language model's linear layers as it is."""
    if quantize:
        pytest.importorskip("bitsandbytes")
    settings = LoadSettings(str(llava_folder), quantize=quantize, dtype="bfloat16")
    held = 0
    for weight in load_checkpoint(settings).model.parameters():
        state = getattr(weight, "quant_state", None)
        scales = [getattr(weight, "SCB", None), None if state is None else state.absmax]
        held += weight.nbytes + sum(scale.nbytes for scale in scales if scale is not None)
    assert held == getattr(count_parameters(read_config(settings))[1], quantize or "bfloat16")


@pytest.mark.parametrize("name", CONFIGS)
def test_text_is_plain_and_fits_80_columns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / name, CONFIGS[name])
    monkeypatch.chdir(tmp_path)
    result = adafv("info", f"./{name}", tty=True)  # of stderr; what goes to stdout is for stdout
    assert (result.code, "\x1b" in result.stdout) == (0, False)
    assert not [line for line in result.stdout.splitlines() if len(line) > 80 or line != line.rstrip()]


def test_text_says_what_json_says(folder: Path) -> None:
    text = adafv("info", str(folder), "--image", "1024x300").stdout
    for part in (
        "LLaVA-NeXT, float16", "llama, 60 layers, hidden 7168", "56 heads of 128 (8 key/value)", "rope theta 5000000",
        "24 layers of which 23 run", "3 to 5 crops", "34.75 B: tower 304 M", "float32 129 GiB", "16 bit 64.7 GiB",
        "int8 33.5 GiB", "int4 19.9 GiB", "240 KiB per token", "1024 x 300: 4 crops, 2160 visual tokens",
        "thumbnail 24 x 24, mosaic 72 x 22; 22 newlines", "one answer of 16 tokens to 64 text tokens", "TFLOPs",
    ):  # fmt: skip
        assert part in text, part


def test_bold_at_a_terminal_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b" not in adafv("info", str(folder)).stdout
    assert "\x1b[1m" in adafv("info", str(folder), stdout_tty=True).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1m" in adafv("info", str(folder)).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in adafv("info", str(folder), stdout_tty=True).stdout


def test_image_from_a_file(folder: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 60))
    picture.getexif()[274] = 6  # lies on its side
    picture.save(tmp_path / "photo.jpg", exif=picture.getexif())
    image = found(folder, "--image", tmp_path / "photo.jpg")["image"]
    assert (image["width"], image["height"]) == (60, 30)


def test_the_demo_is_the_default() -> None:
    one = found()
    assert (one["model"], one["family"]) == ("demo", "llava")


def test_the_model_is_named_in_four_ways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = found(folder)
    assert found("-m", folder) == found("--model", folder) == found(folder, "-m", folder) == expected
    monkeypatch.setenv("ADAFV_MODEL", str(folder))
    assert found() == expected
    assert found("demo")["model"] == "demo"


def refused(*args: object) -> Result:
    result = adafv("info", *map(str, args))
    assert (result.stdout, result.stderr[:7], result.stderr.count("\n")) == ("", "adafv: ", 2)
    return result


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("--image", "640"), ("--image: '640' is neither", "640x480")),
        (("--image", "missing.jpg"), ("missing.jpg", "the path of an image")),
        (("--image", "0x480"), ("0x480", "640x480")),
        (("--image", "99999x99999"), ("99999x99999", "640x480")),
        (("--keep", "0"), ("--keep: 0", "25%")),
        (("--keep", "many"), ("'many'", "25%")),
        (("demo", "-m", "other"), ("demo and other", "give one")),
    ],
)
def test_usage(args: tuple[str, ...], parts: tuple[str, ...]) -> None:
    result = refused(*args)
    assert result.code == 2
    for part in parts:
        assert part in result.stderr


def test_an_image_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no pixels")
    assert refused("--image", tmp_path / "notes.txt").code == 4


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ("holds no config.json", "give a")),
        ("{", ("not valid JSON", "again")),
        (json.dumps({"model_type": "bert"}), ("bert", "llava-hf/llava-1.5-7b-hf")),
        (json.dumps({"model_type": "llava", "mm_vision_tower": "clip"}), ("original format", "llava-hf/")),
    ],
)
def test_checkpoints_that_are_none(content: str | None, parts: tuple[str, ...], tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    result = refused(tmp_path)
    assert result.code == 3
    for part in parts:
        assert part in result.stderr


def test_offline_hub_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    result = refused("someone/llava-that-is-nowhere", "--offline")
    assert result.code == 3
    assert "someone/llava-that-is-nowhere" in result.stderr and "local cache" in result.stderr
    assert "give a local checkpoint folder" in result.stderr


def test_help_imports_nothing_heavy() -> None:
    text = light_help("info", "--help")
    for part in ("adafv info llava-hf/llava-1.5-7b-hf", "MODEL", "-m", "--image", "640x480", "--keep", "--json",
                 "--revision", "--offline", "ADAFV_MODEL", "ADAFV_KEEP", "default: demo", "Exit codes"):  # fmt: skip
        assert part in text, part
    assert "--quantize" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
