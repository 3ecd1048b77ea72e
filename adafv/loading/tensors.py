"""Names and reads the tensors of weight files, one at a time, whatever their format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from torch import Tensor

_DROPPED = re.compile(r"\.(rotary_emb\.inv_freq|embeddings\.position_ids)$")  # buffers, made anew by every model
_TOWER_LAYER = re.compile(r"vision_tower\..*layers\.(\d+)\.")
_NAMES = (  # what comes in front is whatever a trainer wrapped the model in
    (re.compile(r"(.*\.)?vision_tower\.(vision_tower\.)?(vision_model\.)?"), "model.vision_tower."),
    (re.compile(r"(.*\.)?mm_projector\.0\."), "model.multi_modal_projector.linear_1."),
    (re.compile(r"(.*\.)?mm_projector\.2\."), "model.multi_modal_projector.linear_2."),
    (re.compile(r"(.*\.)?multi_modal_projector\."), "model.multi_modal_projector."),
    (re.compile(r"(.*\.)?image_newline$"), "model.image_newline"),
    (re.compile(r"(.*\.)?lm_head\."), "lm_head."),
    (re.compile(r"((.*\.)?(model|language_model)\.)?(?=(layers\.\d+|embed_tokens|norm)\.)"), "model.language_model."),
)
_PUBLISHED = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.image_newline": "image_newline",
    "lm_head.": "language_model.lm_head.",
}


class Held:
    """A tensor that is read when it is indexed, as safetensors' slices are: `held[...]`.

    Args:
        shape: of the tensor.
        dtype: as files name it (`F16`), or as torch does (`float16`).
        read: reads it.
    """

    def __init__(self, shape: Iterable[int], dtype: str, read: Callable[[], Tensor]) -> None:
        self.shape, self.dtype, self._read = tuple(shape), dtype, read

    def __getitem__(self, key: Any) -> Tensor:
        return self._read()[key]


def hold(path: Path) -> dict[str, Held]:
    """List the tensors of a weight file by its own names, without reading them.

    Raises:
        OSError, SafetensorError, UnpicklingError: a file that is damaged, or a pickle of more than tensors.
    """
    if path.suffix == ".safetensors":
        file: Any = safe_open(path, framework="pt", device="cpu")
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        return {key: Held(part.get_shape(), part.get_dtype(), partial(_read, part)) for key, part in slices.items()}
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    tensors = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    return {
        key: Held(value.shape, str(value.dtype).removeprefix("torch."), partial(_read, value))
        for key, value in tensors.items()
    }


def _read(held: Any) -> Tensor:
    tensor: Tensor = held[...]
    return tensor


def module_name(name: str) -> str | None:
    """Name a tensor as a loaded LLaVA does, from its name in any format; `None` for a buffer that no model needs.

    A name that no LLaVA has stays as it is.
    """
    if _DROPPED.search(name):
        return None
    for pattern, ours in _NAMES:
        match = pattern.match(name)
        if match:
            return ours + name[match.end() :]
    return name


def tower_name(name: str) -> str | None:
    """Name a tensor of a vision tower's own checkpoint as a loaded LLaVA does; `None` for all that is no tower's."""
    return (
        None if _DROPPED.search(name) or not name.startswith("vision_model.") else module_name(f"vision_tower.{name}")
    )


def published_name(name: str) -> str:
    """Name a tensor of a loaded LLaVA as published checkpoints do, which every version of transformers reads."""
    beginning = next((ours for ours in _PUBLISHED if name.startswith(ours)), "")
    return _PUBLISHED.get(beginning, "") + name[len(beginning) :]


def is_cut(name: str, vision_layers: int) -> bool:
    """Tell whether a tensor is of a layer of the vision tower behind those that are loaded."""
    layer = _TOWER_LAYER.search(name)
    return layer is not None and int(layer[1]) >= vision_layers


def renamed(tensors: Mapping[str, Held], rename: Callable[[str], str | None]) -> dict[str, Held]:
    """Rename tensors; those that get no name are left out."""
    return {name: held for key, held in tensors.items() if (name := rename(key)) is not None}


def with_rows(table: Held, rows: int) -> Held:
    """Lengthen a table (V, D) of embeddings to `rows` with its mean.

    transformers' conversion draws the new rows from a narrow normal distribution around that mean. They stand for
    tokens that are never embedded, and the mean's logit is never the largest, so that none is ever generated.
    """
    if rows <= table.shape[0]:
        return table

    def read() -> Tensor:
        own = table[...]
        mean = own.float().mean(dim=0, keepdim=True).to(own.dtype)
        return torch.cat([own, mean.expand(rows - len(own), -1)])

    return Held((rows, *table.shape[1:]), table.dtype, read)
