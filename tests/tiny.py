"""Tiny LLaVA checkpoints with random weights, saved and loaded like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

IMAGE, PATCH = 56, 14
SIDE = IMAGE // PATCH
PATCHES = SIDE**2
GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # rows, columns of tiles, as published
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }} {% else %}"
    "USER: {% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
CORPUS = [
    "USER: what color is the sign? ASSISTANT: red",
    "is there a red car? yes no",
    "how many boats are there",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, `<s>` in front, left padding, `<image>` as a token of its own."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    from tokenizers.processors import TemplateProcessing

    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )


def vision_config(**changes: Any) -> CLIPVisionConfig:
    """A CLIP tower of 3 layers."""
    settings: dict[str, Any] = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=IMAGE, patch_size=PATCH, projection_dim=16,
    )  # fmt: skip
    return CLIPVisionConfig(**(settings | changes))


def siglip(**changes: Any) -> dict[str, Any]:
    """What a configuration has instead for a SigLIP tower of 3 layers: no [CLS], and the last layer's output."""
    settings: dict[str, Any] = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=IMAGE, patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip
    tower = SiglipVisionConfig(**(settings | changes))
    return dict(vision_config=tower, vision_feature_select_strategy="full", vision_feature_layer=-1)


def text_config(vocab: int, **changes: Any) -> LlamaConfig:
    """A Llama of 2 layers with grouped-query attention."""
    settings: dict[str, Any] = dict(
        hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=vocab, bos_token_id=0, eos_token_id=1, pad_token_id=2, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaConfig(**(settings | changes))


def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})


def siglip_image_processor() -> SiglipImageProcessorPil:
    """It squeezes an image into a crop, and cuts nothing off."""
    return SiglipImageProcessorPil(size={"height": IMAGE, "width": IMAGE})


def save_llava(
    folder: Path,
    seed: int = 0,
    model: Any = LlavaForConditionalGeneration,
    config: Any = LlavaConfig,
    images: Any = None,
    **changes: Any,
) -> Path:
    """A LLaVA-1.5 checkpoint in `folder`, or one of its kin; `changes` go to the top of its config."""
    words = tokenizer()
    settings = _settings(words) | ({"image_seq_length": PATCHES} if config is LlavaConfig else {})
    _save(model, config(**(settings | changes)), folder, seed)
    LlavaProcessor(images or image_processor(), words, chat_template=TEMPLATE, **PROCESSOR).save_pretrained(folder)
    return folder


def save_llava_next(folder: Path, seed: int = 0, tile: int = IMAGE, **changes: Any) -> Path:
    """A LLaVA-NeXT checkpoint in `folder`, with crops of `tile` x `tile` pixels."""
    words = tokenizer()
    pinpoints = [[rows * tile, columns * tile] for rows, columns in GRIDS]
    settings = _settings(words) | dict(
        image_grid_pinpoints=pinpoints,
        vision_config=vision_config(image_size=tile),
        text_config=text_config(len(words), max_position_embeddings=4096),
    )
    _save(LlavaNextForConditionalGeneration, LlavaNextConfig(**(settings | changes)), folder, seed)
    square = {"height": tile, "width": tile}
    images = LlavaNextImageProcessorPil(size={"shortest_edge": tile}, crop_size=square, image_grid_pinpoints=pinpoints)
    LlavaNextProcessor(images, words, chat_template=TEMPLATE, **PROCESSOR).save_pretrained(folder)
    return folder


def save_llava_onevision(folder: Path, seed: int = 0, largest: int = 2, **changes: Any) -> Path:
    """A LLaVA-OneVision checkpoint in `folder`, whose mosaics of up to 4 x 4 tiles amount to `largest` of them."""
    words = tokenizer()
    words.add_tokens([AddedToken("<video>", special=True, normalized=False)])
    side = (changes.get("vision_config") or siglip()["vision_config"]).image_size
    pinpoints = [[rows * side, columns * side] for rows in range(1, 5) for columns in range(1, 5)]
    text = text_config(len(words), max_position_embeddings=4096).to_dict() | dict(model_type="qwen2")
    settings = _settings(words) | siglip() | dict(
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio=f"anyres_max_{largest}",
        text_config=Qwen2Config(**text),
        video_token_index=len(words) - 1,
    )  # fmt: skip
    _save(LlavaOnevisionForConditionalGeneration, LlavaOnevisionConfig(**(settings | changes)), folder, seed)
    square = {"height": side, "width": side}
    images = LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=pinpoints)
    images.save_pretrained(folder)  # its processor cannot be made without torchvision
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
    return folder


def save(kind: str, folder: Path, **changes: Any) -> Path:
    """A checkpoint of the `model_type` `kind`."""
    if kind == "vipllava":
        if "vision_feature_layer" in changes:  # the name that every transformers knows
            changes["vision_feature_layers"] = changes.pop("vision_feature_layer")
        return save_llava(folder, model=VipLlavaForConditionalGeneration, config=VipLlavaConfig, **changes)
    savers = {"llava": save_llava, "llava_next": save_llava_next, "llava_onevision": save_llava_onevision}
    return savers[kind](folder, **changes)


PROCESSOR: dict[str, Any] = dict(
    patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1
)


def _settings(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return dict(
        vision_config=vision_config(),
        text_config=text_config(len(words)),
        image_token_index=3,
    )


def _save(kind: Any, config: Any, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():  # larger embeddings than the default's, so that words and patches differ clearly
        model.get_input_embeddings().weight.normal_()
        model.lm_head.weight.normal_(std=0.3)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 2
    model.save_pretrained(folder)
