"""What of LLaVA's original format has no equal in Hugging Face format is refused, whatever transformers makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adafv import CheckpointError
from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.original_format import check_convertible, grid_pinpoints, is_original
from adafv.loading.reading import read_config
from adafv.settings import LoadSettings

VICUNA_7B: dict[str, Any] = {  # liuhaotian/llava-v1.5-7b, without fields that say the same in every model
    "_name_or_path": "llava-v1.5-7b",
    "architectures": ["LlavaLlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "freeze_mm_mlp_adapter": False,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "image_aspect_ratio": "pad",
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "mm_hidden_size": 1024,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "llava",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0",
    "vocab_size": 32000,
}
VICUNA_13B = VICUNA_7B | {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40}
ANYRES = {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad"}
YI_34B = (
    VICUNA_7B
    | ANYRES
    | {  # liuhaotian/llava-v1.6-34b
        "hidden_size": 7168,
        "intermediate_size": 20480,
        "num_attention_heads": 56,
        "num_hidden_layers": 60,
        "num_key_value_heads": 8,
        "image_token_index": 64002,
        "rope_theta": 5000000.0,
        "eos_token_id": 7,
    }
)
MISTRAL_7B = (
    VICUNA_7B
    | ANYRES
    | {
        "model_type": "llava_mistral",
        "architectures": ["LlavaMistralForCausalLM"],
        "num_key_value_heads": 8,
    }
)
GRIDS = {"image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]}
TUNED = "runs/llava-lora-merged"

# The layout of its weights, at widths that fit a test.
WEIGHTS = {
    "model.embed_tokens.weight": (64, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.rotary_emb.inv_freq": (4,),
    "model.mm_projector.0.weight": (8, 4),
    "model.mm_projector.0.bias": (8,),
    "model.mm_projector.2.weight": (8, 8),
    "model.mm_projector.2.bias": (8,),
    "model.norm.weight": (8,),
    "lm_head.weight": (64, 8),
}


REFUSED: dict[str, dict[str, Any]] = {
    "model_type 'llava_mpt'": {"model_type": "llava_mpt", "architectures": ["LlavaMPTForCausalLM"]},
    "model_type 'llava_qwen'": {"model_type": "llava_qwen", "architectures": ["LlavaQwenForCausalLM"]},
    "model_type 'llava_mixtral'": {"model_type": "llava_mixtral", "architectures": ["LlavaMixtralForCausalLM"]},
    "mm_projector_type 'linear'": {"mm_projector_type": "linear"},
    "mm_projector_type 'mlp3x_gelu'": {"mm_projector_type": "mlp3x_gelu"},
    "mm_resampler_type 'spatial_pool'": {"mm_resampler_type": "spatial_pool"},
    "mm_use_im_start_end True": {"mm_use_im_start_end": True},
    "mm_vision_select_feature 'cls_patch'": {"mm_vision_select_feature": "cls_patch"},
    "mm_vision_select_layer '-2'": {"mm_vision_select_layer": "-2"},
    "image_aspect_ratio 'anyres_max_9'": ANYRES | {"image_aspect_ratio": "anyres_max_9"},
    "image_aspect_ratio ['pad']": {"image_aspect_ratio": ["pad"]},
    "mm_patch_merge_type 'flat'": ANYRES | {"mm_patch_merge_type": "flat"},
    "mm_patch_merge_type 'spatial'": ANYRES | {"mm_patch_merge_type": "spatial"},
    "image_grid_pinpoints is None": ANYRES,
    "image_grid_pinpoints is '(1x1),...,(6x6)'": ANYRES | {"image_grid_pinpoints": "(1x1),...,(6x6)"},
    "image_grid_pinpoints is [[336]]": ANYRES | {"image_grid_pinpoints": [[336]]},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_equal_is_refused(what: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_convertible(TUNED, VICUNA_7B | REFUSED[what])
    assert TUNED in caught.value.what and what in caught.value.what
    assert "--model llava-hf/" in caught.value.fix


@pytest.mark.parametrize("config", [VICUNA_7B, VICUNA_13B, *(raw | GRIDS for raw in (YI_34B, MISTRAL_7B))])
def test_what_is_published_is_not(config: dict[str, Any]) -> None:
    assert is_original(config)
    check_convertible("any", config)


@pytest.mark.parametrize(
    "name, config, twin",
    [
        ("liuhaotian/llava-v1.5-7b", VICUNA_7B, "llava-hf/llava-1.5-7b-hf"),
        ("liuhaotian/llava-v1.5-13b", VICUNA_13B, "llava-hf/llava-1.5-13b-hf"),
        ("liuhaotian/llava-v1.6-vicuna-7b", VICUNA_7B | ANYRES, "llava-hf/llava-v1.6-vicuna-7b-hf"),
        ("liuhaotian/llava-v1.6-vicuna-13b", VICUNA_13B | ANYRES, "llava-hf/llava-v1.6-vicuna-13b-hf"),
        ("liuhaotian/llava-v1.6-mistral-7b", MISTRAL_7B, "llava-hf/llava-v1.6-mistral-7b-hf"),
        ("liuhaotian/llava-v1.6-34b", YI_34B, "llava-hf/llava-v1.6-34b-hf"),
        ("/data/LLaVA-v1.5-13B/", VICUNA_13B, "llava-hf/llava-1.5-13b-hf"),
    ],
)
def test_what_is_refused_may_have_a_twin(name: str, config: dict[str, Any], twin: str) -> None:
    for known, ending in ((name, f"format: --model {twin}"), (TUNED, f"use --model {twin}, a model of its kind")):
        with pytest.raises(CheckpointError) as caught:
            check_convertible(known, config | {"mm_resampler_type": "perceiver"})
        assert caught.value.fix.endswith(ending)


@pytest.mark.parametrize(
    "given, read",
    [
        ([[336, 672], [672, 336], [672, 672]], [[336, 672], [672, 336], [672, 672]]),
        ("[(336, 672), (672, 336)]", [[336, 672], [672, 336]]),
        ([[336, 1008], [672, 672]], [[1008, 336], [672, 672]]),  # (width, height) there, (height, width) here
    ],
)
def test_mosaics_are_read_as_heights_and_widths(given: object, read: list[list[int]]) -> None:
    assert grid_pinpoints("any", {"image_grid_pinpoints": given}) == read


@pytest.mark.parametrize("config", [VICUNA_7B | {"mm_resampler_type": "x"}, {"model_type": "llava_mpt"}])
def test_folders_are_refused_before_anything_is_loaded(config: dict[str, Any], tmp_path: Path) -> None:
    """`llava` would pass transformers' check with the geometry of the 7B; `llava_mpt` would fail it."""
    weights = {name: torch.zeros(shape) for name, shape in WEIGHTS.items()}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    for name, content in {"config.json": config | {"mm_vision_tower": "a/b"}, "tokenizer_config.json": {}}.items():
        (tmp_path / name).write_text(json.dumps(content))
    for load in (load_checkpoint, read_config):
        with pytest.raises(CheckpointError, match="original format") as caught:
            load(LoadSettings(str(tmp_path)))
        assert "--model llava-hf/" in caught.value.fix


def test_original_weights_under_a_converted_config(llava_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(llava_folder, folder)
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("language_model.", "", 1): held for name, held in weights.items()}
    for layer in ("0", "2"):
        renamed[f"model.mm_projector.{layer}.weight"] = torch.zeros(48, 48)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="original format"):
        load_checkpoint(LoadSettings(str(folder)))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llava", "architectures": ["LlavaForCausalLM"], "vision_config": {"hidden_size": 1024}},
        {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_config": {}},
        {"model_type": "llava_next", "architectures": ["LlavaNextForConditionalGeneration"]},
        {"model_type": "llava_onevision", "architectures": ["LlavaOnevisionForConditionalGeneration"]},
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        {},
    ],
)
def test_others_are_not_original(config: dict[str, Any]) -> None:
    assert not is_original(config)
