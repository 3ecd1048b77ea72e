"""Finds a checkpoint: where it is, in which format, and what is merged into it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from adafv.demo import BUNDLED
from adafv.errors import CheckpointError, InputError, shown
from adafv.families import FAMILIES
from adafv.loading.adapter import CONFIG as ADAPTER_CONFIG
from adafv.loading.adapter import Adapter
from adafv.loading.faults import AGAIN, EXAMPLE, explained
from adafv.loading.files import check_config
from adafv.loading.hub import find, hub_options
from adafv.loading.original import Original
from adafv.loading.original_format import is_original
from adafv.loading.vision_tower import HUB_ID, TowerSource
from adafv.settings import LoadSettings


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is.

    Args:
        place: a folder, or a hub id; of an adapter, its base's.
        hub: what every `from_pretrained` is told about the hub.
        settings: what was asked for; of an adapter, its base as the model.
        original: how to read it where it is in LLaVA's original format.
        adapter: what is merged into it.
    """

    place: str
    hub: dict[str, Any]
    settings: LoadSettings
    original: Original | None = None
    adapter: Adapter | None = None

    @property
    def folder(self) -> Path | None:
        """The folder; `None` on the hub."""
        return Path(self.place) if Path(self.place).is_dir() else None

    @property
    def cached_only(self) -> bool:
        """Whether nothing may be, or can be, fetched."""
        return bool(self.hub["local_files_only"])


def locate(settings: LoadSettings) -> Source:
    """Find the folder or hub id that a user gave, the base of an adapter, and what format it is in.

    Raises:
        CheckpointError: nothing there, or an adapter or a checkpoint in LLaVA's original format that cannot be used.
        InputError: a base for what is no adapter, or a vision tower for what has its own.
    """
    source = _located(settings)
    with explained(settings, "adapter_config.json", cached_only=source.cached_only):
        adapter = Adapter.find(settings.model, source.place, source.hub)
    if adapter is not None:
        source = replace(_base_of(adapter, settings), adapter=adapter)
    elif settings.base is not None:
        raise InputError(f"base: {shown(settings.model)} is no adapter, and needs no base", "leave it out")
    if source.folder is not None:
        check_config(source.folder)
    with explained(source.settings, "config.json", cached_only=source.cached_only):
        raw, _ = PretrainedConfig.get_config_dict(source.place, **source.hub)
    if adapter is not None and adapter.original is not None and not isinstance(raw.get("vision_config"), dict):
        raw = adapter.original  # of the LLaVA that LLaVA's trainer made of a language model, or of another LLaVA
    if is_original(raw):
        return replace(source, original=_original(source, raw))
    if settings.vision_tower is not None:
        what = f"vision_tower: {shown(settings.model)} is in Hugging Face format, and has its own"
        raise InputError(what, "leave it out")
    _check_raw(source.settings.model, raw)
    return source


def _original(source: Source, raw: dict[str, Any]) -> Original:
    name, settings = source.settings.model, source.settings
    tower = TowerSource.of(name, raw.get("mm_vision_tower"), settings.vision_tower, offline=settings.offline)
    return Original(name, source.place, source.hub, raw, tower)


def _base_of(adapter: Adapter, settings: LoadSettings) -> Source:
    """Find the base of an adapter: as the user says, or else as it says itself."""
    base = settings.base or adapter.base
    if base is None:
        raise CheckpointError(f"model: the adapter {adapter.name} names no base", "give it with --base")
    inside = Path(adapter.place) / base
    if settings.base is None and not _is_folder(Path(base)) and _is_folder(inside):
        base = str(inside)
    try:
        source = _located(replace(settings, model=base, base=None, revision=None))
    except CheckpointError as error:
        what = f"model: {adapter.name} is an adapter for {shown(base)}, which is not here"
        raise CheckpointError(what, "give the base that it was trained on with --base") from error
    if find(source.place, ADAPTER_CONFIG, source.hub) is not None:
        what = f"model: {adapter.name} is an adapter for {shown(base)}, which is an adapter itself"
        raise CheckpointError(what, f"merge that first: adafv convert {base} FOLDER, then --base FOLDER")
    return source


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _located(settings: LoadSettings) -> Source:
    """Find a folder or a hub id.

    Raises:
        CheckpointError: nothing there.
    """
    name = settings.model
    fix = f"give a checkpoint folder, a hub id, or {' or '.join(BUNDLED)}"
    try:
        folder = BUNDLED.get(name) or Path(name).expanduser()
        if name and folder.is_dir():
            return Source(str(folder), hub_options(offline=True, folder=True, revision=settings.revision), settings)
        there = name and folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, no permission, no such home
        raise CheckpointError(f"model: {shown(name)} cannot be looked for: {error}", fix) from error
    if there:
        raise CheckpointError(f"model: {name} is a file, not a checkpoint folder", "give the folder that holds it")
    if name in BUNDLED or not HUB_ID.fullmatch(name):
        raise CheckpointError(f"model: there is no folder {shown(name)}", fix)
    return Source(name, hub_options(offline=settings.offline, folder=False, revision=settings.revision), settings)


def _check_raw(name: str, raw: dict[str, Any]) -> None:
    """Refuse what is missing from config.json as it stands: transformers fills in the 7B's."""
    if raw.get("model_type") not in FAMILIES:
        own = ", and needs code of its own, which adafv never runs" if "auto_map" in raw else ""
        raise CheckpointError(
            f"model: {name} is of the type {raw.get('model_type')!r}, not one of {', '.join(FAMILIES)}{own}", EXAMPLE
        )
    for part in ("vision_config", "text_config"):
        if not isinstance(raw.get(part), dict) or not raw[part]:
            raise CheckpointError(f"model: the config.json of {name} has no {part}", AGAIN)
