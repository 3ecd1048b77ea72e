"""Reads LoRA adapters: PEFT's, and those of LLaVA's own trainer, which leaves more beside them.

Tensors get the names of the loaded LLaVA, whatever names the adapter was trained under: those of LLaVA's original
format, or of any version of transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adafv.errors import CheckpointError, shown
from adafv.loading.faults import AGAIN
from adafv.loading.files import read_json
from adafv.loading.hub import find
from adafv.loading.original_format import is_original
from adafv.loading.tensors import Held, hold, module_name, renamed

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_OTHERS = ("non_lora_trainables.safetensors", "non_lora_trainables.bin")  # of LLaVA's trainer: the projector above all
_WRAPPED = re.compile(r"^base_model\.model\.")
_COPIED = re.compile(r"\.(modules_to_save|original_module|base_layer)(\.default)?(?=\.)")
_LORA = re.compile(r"^(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
                   r"(\.default)?(?P<leaf>\.weight|\.bias)?$")  # fmt: skip
_MERGED = "merge it with the tools that it was made with, and give the merged checkpoint"
_PLAIN = (True, False, None, "gaussian", "orthogonal", "eva")  # of `init_lora_weights`: the base stays as it is


@dataclass(frozen=True)
class Adapter:
    """An adapter that was found, none of its weights read.

    Args:
        name: as the user gave it.
        place: a folder or a hub id.
        hub: what every `from_pretrained` is told about the hub.
        settings: its `adapter_config.json`.
    """

    name: str
    place: str
    hub: dict[str, Any]
    settings: Mapping[str, Any]

    @classmethod
    def find(cls, name: str, place: str, hub: dict[str, Any]) -> Adapter | None:
        """Find the adapter in a folder or repository; `None` where there is none.

        Raises:
            CheckpointError: one that is no LoRA, or that came with changed weights of its base.
        """
        path = find(place, CONFIG, hub)
        if path is None:
            return None
        settings = read_json(path)
        kind, start = settings.get("peft_type"), settings.get("init_lora_weights")
        if kind != "LORA":
            what = f"model: {name} is an adapter of the type {shown(kind)}, and only LORA can be merged"
            raise CheckpointError(what, _MERGED)
        if start not in _PLAIN:
            what = f"model: {name} is an adapter with init_lora_weights {shown(start)}, which changes its base as well"
            raise CheckpointError(what, _MERGED)
        return cls(name, place, hub, settings)

    @property
    def base(self) -> str | None:
        """What it says that it was trained on: a folder, or a hub id."""
        named = self.settings.get("base_model_name_or_path")
        return named if isinstance(named, str) and named else None

    @cached_property
    def original(self) -> dict[str, Any] | None:
        """Its config.json where LLaVA's own trainer left one: of the LLaVA that it makes of its base."""
        path = find(self.place, "config.json", self.hub)
        raw = None if path is None else read_json(path)
        return raw if raw is not None and is_original(raw) else None

    @cached_property
    def _held(self) -> dict[str, Held]:
        """All tensors by the names of its files."""
        found = [path for name in _WEIGHTS if (path := find(self.place, name, self.hub)) is not None]
        if not found:
            raise CheckpointError(f"model: the adapter {self.name} holds no {' or '.join(_WEIGHTS)}", AGAIN)
        others = [path for name in _OTHERS if (path := find(self.place, name, self.hub)) is not None]
        if self.original is not None and not others:
            what = (
                f"model: the adapter {self.name} holds no {_OTHERS[-1]}, which LLaVA's trainer leaves beside its LoRA"
            )
            raise CheckpointError(what, AGAIN)
        return {key: held for path in [*others[:1], found[0]] for key, held in hold(path).items()}

    @cached_property
    def whole(self) -> dict[str, Held]:
        """Tensors that take the place of the base's, by the names of a loaded LLaVA."""
        own = {_COPIED.sub("", key): held for key, held in self._held.items() if not _LORA.match(key)}
        return renamed(own, module_name)

    @cached_property
    def parts(self) -> dict[str, dict[str, Held]]:
        """The LoRA's tensors: module of a loaded LLaVA, to what peft calls its parts (`lora_A.default.weight`)."""
        found: dict[str, dict[str, Held]] = {}
        for module, _, part, held in self._lora():
            found.setdefault(module, {})[part] = held
        return found

    @property
    def trained(self) -> dict[str, str]:
        """Modules of a loaded LLaVA, to their names where they were trained."""
        return {module: own for module, own, _, _ in self._lora()}

    def _lora(self) -> Iterator[tuple[str, str, str, Held]]:
        for key, held in self._held.items():
            match = _LORA.match(key)
            if match is None:
                continue
            own = _WRAPPED.sub("", match["module"])
            module = (module_name(f"{own}.weight") or own).removesuffix(".weight")
            leaf = match["leaf"] or (".weight" if match["part"] == "lora_magnitude_vector" else "")
            yield module, own, f"{match['part']}.default{leaf}", held
