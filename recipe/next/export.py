"""Write the trained parts as a Hugging Face LLaVA-NeXT checkpoint, and read them back."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    AutoModelForImageTextToText,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)

from recipe.export import CHAT_TEMPLATE, exported_language, fill_and_save, stock_names, text_config, tokenizer
from recipe.export import vision_config as tower_config
from recipe.layout import as_published
from recipe.network import PATCH, VISION_LAYERS
from recipe.next.language import LAYERS, ROPE_BASE, TiledLanguage
from recipe.next.mosaic import PINPOINTS, image_processor
from recipe.vision_training import Eyes
from recipe.vocabulary import IMAGE


def export_next(eyes: Eyes, language: TiledLanguage, folder: Path) -> None:
    """Write the checkpoint into `folder`. It reads the tower's last layer: there is none behind that does nothing."""
    base = {"rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE}}
    config = LlavaNextConfig(
        vision_config=tower_config(VISION_LAYERS),
        text_config=text_config(LAYERS, **base),
        image_token_index=IMAGE,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=PINPOINTS,
        tie_word_embeddings=False,
    )
    state = stock_names(eyes, language)
    state["model.image_newline"] = state.pop("model.language_model.image_newline")
    fill_and_save(LlavaNextForConditionalGeneration(config), state, folder)
    LlavaNextProcessor(
        image_processor(),
        tokenizer(),
        chat_template=CHAT_TEMPLATE,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    as_published(folder)
    file = folder / "config.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    written["text_config"]["rope_theta"] = ROPE_BASE  # where transformers before 5 looks for it
    file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def exported_tiled(folder: Path) -> TiledLanguage:
    """Read the language model back out of an exported checkpoint."""
    state = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    language = TiledLanguage()
    language.load_state_dict(exported_language(folder) | {"image_newline": state["model.image_newline"]})
    return language.eval()
