"""The layout of published LLaVA checkpoints, which every transformers from 4.57 on reads, and so do other engines.

transformers 5 writes the vision tower's tensors without `vision_model`, and names the tokenizer's class anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

TOWER, PUBLISHED_TOWER = "vision_tower.", "vision_tower.vision_model."


def as_published(folder: Path) -> None:
    """Rewrite what `save_pretrained` wrote into `folder`; the numbers of the weights stay the same."""
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({_published(name): tensor for name, tensor in tensors.items()}, weights, {"format": "pt"})
    weights.chmod(0o644)  # it is written for its owner only
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("backend", None)
    named: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if "extra_special_tokens" in settings:
        named["additional_special_tokens"] = settings.pop("extra_special_tokens")
    path.write_text(json.dumps(settings | named, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _published(name: str) -> str:
    is_short = name.startswith(TOWER) and not name.startswith(PUBLISHED_TOWER)
    return PUBLISHED_TOWER + name.removeprefix(TOWER) if is_short else name
