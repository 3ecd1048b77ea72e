"""Checkpoints in LLaVA's original format: names, layout and configuration as published, widths and weights tiny."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from tests import families
from tests.tiny import GRIDS, IMAGE, PATCH

Json = dict[str, Any]

_COMMON: Json = {  # of liuhaotian/llava-v1.5-7b, but for the sizes; the others differ in what stands below
    "_name_or_path": "llava-v1.5-7b", "architectures": ["LlavaLlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
    "freeze_mm_mlp_adapter": False, "freeze_mm_vision_resampler": False, "hidden_act": "silu",
    "initializer_range": 0.02, "max_length": 4096, "max_position_embeddings": 4096, "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None, "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "model_type": "llava", "pad_token_id": 0,
    "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "float32", "transformers_version": "4.31.0", "tune_mm_mlp_adapter": False,
    "unfreeze_mm_vision_tower": False, "use_cache": True, "use_mm_proj": True,
}  # fmt: skip
_ANYRES: Json = {
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[rows * IMAGE, columns * IMAGE] for rows, columns in GRIDS],
    "mm_patch_merge_type": "spatial_unpad",
}
_SIZES: Json = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
                "num_key_value_heads": 4, "mm_hidden_size": 24, "vocab_size": 32_000}  # fmt: skip
RAW: dict[str, Json] = {
    "v1.5-7b": _COMMON | _SIZES | {"image_aspect_ratio": "pad"},
    "v1.6-vicuna-7b": _COMMON | _SIZES | _ANYRES,
    "v1.6-mistral-7b": _COMMON | _SIZES | _ANYRES | {
        "model_type": "llava_mistral", "architectures": ["LlavaMistralForCausalLM"], "num_key_value_heads": 2,
        "rope_theta": 1000000.0, "sliding_window": None, "torch_dtype": "bfloat16", "attention_dropout": 0.0,
    },
    "v1.6-34b": _COMMON | _SIZES | _ANYRES | {
        "model_type": "llava_llama", "num_key_value_heads": 2, "rope_theta": 5000000.0, "eos_token_id": 7,
        "vocab_size": 64_000, "image_token_index": 64002, "attention_bias": False, "torch_dtype": "bfloat16",
    },
}  # fmt: skip
IMAGE_IDS = {"v1.5-7b": 32_000, "v1.6-vicuna-7b": 32_000, "v1.6-mistral-7b": 32_000, "v1.6-34b": 64_000}
ROWS = {"v1.5-7b": 32_064, "v1.6-vicuna-7b": 32_064, "v1.6-mistral-7b": 32_064, "v1.6-34b": 64_064}


def tokenizer(kind: str) -> Any:
    """As it comes with the language model: without `<image>`."""
    if kind == "v1.6-34b":
        known = {0: "<unk>", 1: "<|startoftext|>", 2: "<|endoftext|>", 6: "<|im_start|>", 7: "<|im_end|>"}
        ends: Json = {"bos": "<|startoftext|>", "eos_token": "<|im_end|>"}
        words = families.llama_tokenizer(known, 64_000, [], add_bos=False, **ends)
    else:
        words = families.vicuna_tokenizer()
    if kind != "v1.6-mistral-7b":
        words.pad_token = "<unk>"
    return words


def text_tensors(raw: Json) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a language model of the Llama kind, as its own checkpoint has them."""
    width, ffn, vocab = raw["hidden_size"], raw["intermediate_size"], raw["vocab_size"]
    grouped = width // raw["num_attention_heads"] * raw["num_key_value_heads"]
    yield "model.embed_tokens.weight", (vocab, width)
    for layer in range(raw["num_hidden_layers"]):
        for name, shape in {
            "input_layernorm": (width,), "self_attn.q_proj": (width, width), "self_attn.k_proj": (grouped, width),
            "self_attn.v_proj": (grouped, width), "self_attn.o_proj": (width, width),
            "post_attention_layernorm": (width,), "mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width),
            "mlp.down_proj": (width, ffn),
        }.items():  # fmt: skip
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (vocab, width)


def projector_tensors(raw: Json) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = raw["hidden_size"]
    yield "model.mm_projector.0.weight", (width, raw["mm_hidden_size"])
    yield "model.mm_projector.0.bias", (width,)
    yield "model.mm_projector.2.weight", (width, width)
    yield "model.mm_projector.2.bias", (width,)


def random(shapes: Iterator[tuple[str, tuple[int, ...]]], seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(seed)
    return {name: torch.randn(shape).mul(0.3).to(dtype) for name, shape in shapes}


def save_tower(folder: Path, seed: int = 5, **changes: Any) -> dict[str, Tensor]:
    """A CLIP model with both of its towers, as `openai/clip-vit-*` have them; returns the vision tower's tensors."""
    torch.manual_seed(seed)
    vision: Json = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
                    "image_size": IMAGE, "patch_size": PATCH, "projection_dim": 8} | changes  # fmt: skip
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text | {"vocab_size": 99}, projection_dim=8))
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    edge = {"height": IMAGE, "width": IMAGE}
    fields = {"image_processor_type": "CLIPImageProcessor", "crop_size": edge, "size": {"shortest_edge": IMAGE},
              "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3,
              "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
              "image_std": [0.26862954, 0.26130258, 0.27577711]}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return {name: held.detach() for name, held in model.vision_model.state_dict().items() if "position_ids" not in name}


def save_files(folder: Path, kind: str, config: Json) -> None:
    """All that is not weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    generation = {"bos_token_id": 1, "eos_token_id": config["eos_token_id"], "max_length": 4096, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tokenizer(kind).save_pretrained(folder)


def save_shards(folder: Path, tensors: dict[str, Tensor], whole: str) -> None:
    """Two files and their index."""
    names, weight_map = sorted(tensors), {}
    stem, _, suffix = whole.rpartition(".")
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        held = {name: tensors[name] for name in part}
        save_file(held, folder / file) if suffix == "safetensors" else torch.save(held, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def save_original(
    folder: Path,
    kind: str,
    tower: Path,
    *,
    inside: dict[str, Tensor] | None = None,
    whole: str = "pytorch_model.bin",
    **changes: Any,
) -> dict[str, Tensor]:
    """A checkpoint in two shards; returns its tensors by their original names.

    Args:
        tower: what its configuration names.
        inside: of a vision tower that it holds itself.
        whole: name of the file that the shards are of.
        changes: to its configuration.
    """
    raw = RAW[kind] | {"mm_vision_tower": str(tower)} | changes
    save_files(folder, kind, raw)
    dtype = getattr(torch, raw["torch_dtype"])
    tensors: dict[str, Tensor] = random(iter([*text_tensors(raw), *projector_tensors(raw)]), dtype=dtype)
    if kind != "v1.5-7b":
        tensors["model.image_newline"] = torch.linspace(-1, 1, raw["hidden_size"]).to(dtype)
    for name, held in (inside or {}).items():
        tensors[f"model.vision_tower.vision_tower.vision_model.{name}"] = held.to(dtype)
    buffer = torch.arange(4).float()
    buffers = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": buffer.clone() for n in range(2)}
    save_shards(folder, tensors | buffers, whole)
    return tensors
