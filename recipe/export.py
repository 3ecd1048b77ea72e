"""Write the trained parts as a Hugging Face LLaVA checkpoint.

It is a rename, a sixth vision layer that does nothing, and fp16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from recipe.drawing import GRID, SIDE
from recipe.language import Language
from recipe.layout import as_published
from recipe.network import HEADS, HIDDEN, PATCH, RMS_EPS, TEXT_LAYERS, TEXT_MLP, VISION_LAYERS, VISION_MLP
from recipe.vision_training import DEVIATION, MEAN, Eyes
from recipe.vocabulary import END, ID, IMAGE, PAD, SPECIAL, START, WORDS

# "USER: <image>\n{question} ASSISTANT:", a system turn as its text and a space in front.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def export(eyes: Eyes, language: Language, folder: Path) -> None:
    """Write the checkpoint into `folder`."""
    model = LlavaForConditionalGeneration(_config())
    fill_and_save(model, stock_names(eyes, language) | _idle_layer(eyes), folder)
    _processor().save_pretrained(folder)
    as_published(folder)


def fill_and_save(model: Any, state: dict[str, Tensor], folder: Path) -> None:
    """Give a stock model its weights and write it as float16."""
    missing = set(model.state_dict()) ^ set(state)
    if missing:
        raise ValueError(f"parameters without a counterpart: {sorted(missing)}")
    model.load_state_dict(state)
    model.generation_config = GenerationConfig(
        bos_token_id=START, eos_token_id=END, pad_token_id=PAD, do_sample=False, max_new_tokens=4
    )
    model.half().save_pretrained(folder)


def vision_config(layers: int) -> CLIPVisionConfig:
    """Configuration of the tower."""
    return CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=VISION_MLP,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="gelu",
        projection_dim=HIDDEN,
    )


def text_config(layers: int, **settings: Any) -> LlamaConfig:
    """Configuration of the language model; `settings`: further ones of its own."""
    return LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=HIDDEN,
        intermediate_size=TEXT_MLP,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        rms_norm_eps=RMS_EPS,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=PAD,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        **settings,
    )


def _config() -> LlavaConfig:
    return LlavaConfig(
        vision_config=vision_config(VISION_LAYERS + 1),
        text_config=text_config(TEXT_LAYERS),
        image_token_index=IMAGE,
        image_seq_length=GRID * GRID,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def stock_names(eyes: Eyes, language: nn.Module) -> dict[str, Tensor]:
    """Our parameters under the names of transformers."""
    state: dict[str, Tensor] = {"model.language_model.embed_tokens.weight": eyes.words.detach()}
    for name, value in eyes.vision.state_dict().items():
        shaped = value.view(HIDDEN, 3, PATCH, PATCH) if name == "patch_embedding.weight" else value
        state[_stock_name(name)] = shaped
    state["model.vision_tower.post_layernorm.weight"] = torch.ones(HIDDEN)
    state["model.vision_tower.post_layernorm.bias"] = torch.zeros(HIDDEN)
    state |= {f"model.multi_modal_projector.{name}": value for name, value in eyes.projector.state_dict().items()}
    for name, value in language.state_dict().items():
        state[name if name.startswith("lm_head") else f"model.language_model.{name}"] = value
    return state


def _idle_layer(eyes: Eyes) -> dict[str, Tensor]:
    """The unused last vision layer, which changes nothing."""
    last, state = f"model.vision_tower.encoder.layers.{VISION_LAYERS}.", {}
    for name, value in eyes.vision.layers[-1].state_dict().items():
        is_scale = "norm" in name and name.endswith("weight")
        state[last + name] = torch.ones_like(value) if is_scale else torch.zeros_like(value)
    return state


def _stock_name(name: str) -> str:
    """Name in transformers of a parameter of `Vision`."""
    if name == "position_embedding":
        name = "position_embedding.weight"
    place = "encoder." if name.startswith("layers") else "" if name.startswith("pre_") else "embeddings."
    return f"model.vision_tower.{place}{name}"


def exported_language(folder: Path) -> dict[str, Tensor]:
    """Read the weights of the language model, without its embeddings, back out of an exported checkpoint."""
    state = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    own = ("model.language_model.", "lm_head.")
    return {
        name.removeprefix(own[0]): value
        for name, value in state.items()
        if name.startswith(own) and "embed_tokens" not in name
    }


def exported_eyes(folder: Path) -> Eyes:
    """Read the vision part, and the words' embeddings, back out of an exported checkpoint."""
    state = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    eyes = Eyes()
    own = eyes.state_dict()
    for name, value in own.items():
        part, _, rest = name.partition(".")
        stock = {
            "words": "model.language_model.embed_tokens.weight",
            "vision": _stock_name(rest),
            "projector": f"model.multi_modal_projector.{rest}",
        }[part]
        value.copy_(state[stock].view_as(value))
    return eyes


def _processor() -> LlavaProcessor:
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[round(x, 8) for x in MEAN.tolist()],
        image_std=[round(x, 8) for x in DEVIATION.tolist()],
        do_resize=True,
        do_center_crop=True,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """Word-level, lower-casing; splits exactly as `vocabulary.encode` does and puts `<s>` in front."""
    core = Tokenizer(WordLevel(dict(ID), unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    split = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), behavior="removed", invert=True)
    core.pre_tokenizer = pre_tokenizers.Sequence([split])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", START)]
    )
    core.add_special_tokens(list(SPECIAL))
    settings: dict[str, Any] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "padding_side": "left",
        "model_max_length": 2048,
        "additional_special_tokens": ["<image>"],
        "clean_up_tokenization_spaces": False,
    }
    return PreTrainedTokenizerFast(tokenizer_object=core, **settings)
