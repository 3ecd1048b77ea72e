"""A corpus of damaged checkpoints: each field of each file set to what does not belong there, and faults that met us.

Damage is drawn with a seed, so that the same number is the same damage.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.spoiling import Edit, sharded, written

FIELD_FILES = ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json")
VALUES: tuple[Any, ...] = (
    -1, -200, 0, 1, 7, 10**9, 2**70, 0.5, -1.5, 1e300, True, None, "", "word", "x" * 5_000, [], [1], [0, 0], ["a"],
    [[]], [[[1]]], {}, {"a": 1},
)  # fmt: skip
# Fields that published files have and tiny ones lack.
ABSENT = {
    "config.json": (
        "auto_map", "ignore_index", "image_token_id", "pad_token_id", "quantization_config", "vision_feature_layers",
        "vocab_size", "_attn_implementation", "text_config.sliding_window", "text_config.rope_scaling",
        "vision_config.projection_dim",
    ),
    "generation_config.json": ("max_length", "temperature", "do_sample", "suppress_tokens", "forced_eos_token_id"),
    "processor_config.json": ("auto_map", "chat_template", "image_processor.feature_extractor_type"),
    "tokenizer_config.json": ("auto_map", "added_tokens_decoder", "chat_template", "add_bos_token", "unk_token"),
}  # fmt: skip
TEXTS = ("", "{}", "[]", "null", "3", '"text"', '{"a"', "\x00\x01", "[" * 100_000)
TEMPLATES = (
    "{{ 1 / 0 }}",
    "{{ messages[99].content }}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{% for i in range(10 ** 12) %}x{% endfor %}",
    "{{ 'x' * 10 ** 12 }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages | map(attribute='nothing') | sum }}",
    "{{ raise_exception('no') }}",
    "{% include 'other' %}",
    "{{ messages | tojson }}",
    "{{ undefined.thing }}",
    "{% for",
    "{{ 10 ** 10 ** 8 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
)


@dataclass(frozen=True)
class Damage:
    """One damaged checkpoint: what is done to a whole one of some family."""

    family: str
    name: str
    edit: Edit

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"

    def of(self, whole: Path, folder: Path) -> Path:
        """A damaged copy of a whole checkpoint."""
        shutil.copytree(whole, folder)
        self.edit(folder)
        return folder


def field(file: str, path: str, value: Any) -> Edit:
    """A field of a JSON file set, by its dotted path."""

    def edit(folder: Path) -> None:
        content = place = json.loads((folder / file).read_text())
        *outer, last = path.split(".")
        for name in outer:
            place = place[name]
        place[last] = value
        (folder / file).write_text(json.dumps(content))

    return edit


def separate(folder: Path) -> None:
    """The image processor in a file of its own, as published checkpoints have it."""
    content = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(content.pop("image_processor")))
    (folder / "processor_config.json").write_text(json.dumps(content))


def _paths(content: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in content.items():
        yield before + name
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name}.")


def corpus(family: str, whole: Path) -> list[Damage]:
    """All of it, in a fixed order."""
    found = []
    for file in FIELD_FILES:
        for path in (*_paths(json.loads((whole / file).read_text())), *ABSENT[file]):
            found += [Damage(family, f"{file} {path} = {_short(value)}", field(file, path, value)) for value in VALUES]
    content = json.loads((whole / "processor_config.json").read_text())["image_processor"]
    for path in _paths(content):
        for value in VALUES:
            edit = _both(separate, field("preprocessor_config.json", path, value))
            found.append(Damage(family, f"preprocessor_config.json {path} = {_short(value)}", edit))
    for file in (*FIELD_FILES, "preprocessor_config.json", "tokenizer.json", "special_tokens_map.json",
                 "added_tokens.json", "chat_template.json", "chat_template.jinja"):  # fmt: skip
        found += [Damage(family, f"{file} is {text[:9]!r}", _both(separate, written(file, text))) for text in TEXTS]
    found += [Damage(family, f"template {text[:60]}", written("chat_template.jinja", text)) for text in TEMPLATES]
    for value in VALUES:
        edit = sharded(field("model.safetensors.index.json", "weight_map", {"lm_head.weight": value}))
        found.append(Damage(family, f"index names {_short(value)}", edit))
        edit = sharded(field("model.safetensors.index.json", "weight_map", value))
        found.append(Damage(family, f"index maps {_short(value)}", edit))
    return found


def sample(damages: list[Damage], count: int, seed: int) -> list[Damage]:
    """Some of a corpus, always the same."""
    return random.Random(seed).sample(damages, count)


def _both(first: Edit, second: Edit) -> Edit:
    def edit(folder: Path) -> None:
        first(folder)
        second(folder)

    return edit


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 30 else f"{text[:20]}... ({len(text)})"
