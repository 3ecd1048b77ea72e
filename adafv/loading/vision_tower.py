"""Finds the vision tower of a checkpoint in LLaVA's original format, which names one and seldom holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoConfig, CLIPImageProcessorPil, CLIPVisionConfig

from adafv.errors import CheckpointError, cut, shown
from adafv.loading.files import weight_files
from adafv.loading.hub import fetched_weights, hub_options, without_code
from adafv.loading.tensors import Held, hold, renamed, tower_name

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_VIT_L: dict[str, Any] = dict(  # noqa: C408 - as in the config.json that it stands for
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, projection_dim=768,
    patch_size=14, vocab_size=32000,
)  # fmt: skip
_KNOWN = {"openai/clip-vit-large-patch14-336": 336, "openai/clip-vit-large-patch14": 224}
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True)
class TowerSource:
    """Where a vision tower is.

    Args:
        name: of the checkpoint that it belongs to, as the user gave it.
        place: a folder or a hub id.
        offline: never touch the network.
    """

    name: str
    place: str
    offline: bool = False

    @classmethod
    def of(cls, name: str, named: object, chosen: str | None, *, offline: bool) -> TowerSource:
        """Find the tower of the checkpoint `name`.

        Args:
            name: of the checkpoint, as the user gave it.
            named: `mm_vision_tower` of its config.json.
            chosen: the user's, which counts more.
            offline: never touch the network.

        Raises:
            CheckpointError: none is named, or what is named is neither a folder nor a hub id.
        """
        place = chosen if chosen is not None else named
        if not isinstance(place, str) or not place:
            raise CheckpointError(f"model: {name}: its config.json names no vision tower (mm_vision_tower)", _GIVE)
        expanded = str(Path(place).expanduser()) if chosen is not None else place
        if not _is_folder(expanded) and not HUB_ID.fullmatch(place):
            raise CheckpointError(f"model: {name}: there is no vision tower {shown(place)} here", _GIVE)
        return cls(name, expanded, offline)

    def config(self) -> CLIPVisionConfig:
        """Read its configuration; OpenAI's two towers are known.

        Raises:
            CheckpointError: it is not there, or no CLIP tower.
        """
        if self._known:
            return CLIPVisionConfig(**_VIT_L, image_size=_KNOWN[self.place])
        with self._explained():
            found = AutoConfig.from_pretrained(self.place, **self._hub)
        vision = getattr(found, "vision_config", found)
        if not isinstance(vision, CLIPVisionConfig):
            what = f"model: {self.name}: its vision tower {shown(self.place)} is of the type {found.model_type!r}"
            raise CheckpointError(f"{what}, and in LLaVA's original format only CLIP's is read", _GIVE)
        return vision

    def image_processing(self) -> dict[str, Any]:
        """Read the fields of its image processor.

        Raises:
            CheckpointError: there is none.
        """
        if self._known:
            edge = _KNOWN[self.place]
            square = {"height": edge, "width": edge}
            return {"size": {"shortest_edge": edge}, "crop_size": square, "image_mean": _MEAN, "image_std": _STD}
        with self._explained():
            fields, _ = CLIPImageProcessorPil.get_image_processor_dict(self.place, **without_code(self._hub))
        kept = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor", "do_rescale")
        more = ("do_resize", "do_center_crop", "do_normalize", "do_convert_rgb")
        return {key: fields[key] for key in (*kept, *more) if key in fields}

    def tensors(self) -> dict[str, Held]:
        """List its tensors by the names of a loaded LLaVA; what is on the hub is fetched.

        Raises:
            CheckpointError: there are none.
        """
        folder = Path(self.place)
        with self._explained():
            files = weight_files(folder) if _is_folder(self.place) else fetched_weights(self.place, self._hub)
            found = {key: held for path in files for key, held in renamed(hold(path), tower_name).items()}
        if not found:
            what = f"model: {self.name}: what is said to be its vision tower, {shown(self.place)}, holds none of CLIP's"
            raise CheckpointError(what, _GIVE)
        return found

    @cached_property
    def _hub(self) -> dict[str, Any]:
        return hub_options(offline=self.offline, folder=_is_folder(self.place))

    @property
    def _known(self) -> bool:
        return self.place in _KNOWN and not _is_folder(self.place)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # damaged files make the libraries raise nearly anything
            said = cut(" ".join(str(error).strip().splitlines()[:1]))
            what = f"model: {self.name}: its vision tower {shown(self.place)} cannot be loaded: {said}"
            raise CheckpointError(what, _GIVE) from error


_GIVE = "give it with --vision-tower: a folder with its config.json and weights, or a hub id"


def _is_folder(place: str) -> bool:
    try:
        return Path(place).is_dir()
    except (OSError, ValueError):
        return False
