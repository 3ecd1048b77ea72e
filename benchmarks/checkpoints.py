"""Random-weight checkpoints at real geometry: the cost is real, the answers are not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.tiny import TEMPLATE, tokenizer

VISION = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
)


def llava(folder: Path, hidden: int = 2048, layers: int = 16, mlp: int = 5632, vocab: int = 32064) -> Path:
    """ViT-L/14-336 and a Llama of about 0.8 B parameters, bf16, saved once in `folder`; answers do not end early."""
    if (folder / "config.json").exists():
        return folder
    words = tokenizer()
    text = LlamaConfig(
        hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=hidden // 128,
        vocab_size=vocab, bos_token_id=0, eos_token_id=vocab - 1, pad_token_id=2, max_position_embeddings=4096,
    )  # fmt: skip
    config: dict[str, Any] = {"vision_config": VISION, "text_config": text, "image_token_index": 3}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlavaForConditionalGeneration(LlavaConfig(**config))
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = vocab - 1, 2
    model.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    LlavaProcessor(
        pictures, words, patch_size=14, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder
