"""Writes a checkpoint in LLaVA's original format, or one with an adapter, as a whole one in Hugging Face format."""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, GenerationConfig

from adafv.errors import InputError, cut, shown
from adafv.loading.checkpoint import original_tensors, read_whole
from adafv.loading.faults import explained
from adafv.loading.files import check_files
from adafv.loading.reading import configuration, own_generation_config, prompting
from adafv.loading.source import Source, locate
from adafv.loading.tensors import Held, published_name
from adafv.loading.weights import check_finite, check_names, unreported
from adafv.settings import LoadSettings

_SHARD = 2 * 2**30  # bytes of tensors in a file, and so in memory


def convert(settings: LoadSettings, folder: Path) -> None:
    """Write a checkpoint in Hugging Face format, with the types that its weights have.

    The folder appears when it is complete. Weights in LLaVA's original format are read and written a few at a time;
    with an adapter the merged model is in memory once.

    Args:
        settings: which checkpoint, its base and its vision tower; where and how to hold it is of no account.
        folder: to be made; there must be nothing yet.

    Raises:
        InputError: a checkpoint that is in Hugging Face format already, or a folder that cannot be made.
        CheckpointError, DeviceError: as `load_checkpoint`.
    """
    check_new(folder)
    source = locate(replace(settings, device_map="cpu", quantize=None, attention="sdpa"))
    if source.original is None and source.adapter is None:
        what = f"model: {shown(settings.model)} is a checkpoint in Hugging Face format"
        raise InputError(what, "use it as it is: there is nothing to convert")
    temporary = folder.absolute().with_name(f".adafv-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        with explained(source.settings, "the converted model", cached_only=source.cached_only):
            _write(source, settings, temporary)
        for path in temporary.iterdir():
            _flush(path)
        check_new(folder)
        temporary.rename(folder)
    except OSError as error:
        what = f"folder: {cut(str(folder))} cannot be written: {error.strerror or error}"
        raise InputError(what, "check the disk, and the permissions") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(folder: Path) -> None:
    """See that a folder can be made where there is nothing yet.

    Raises:
        InputError: it is there, or what it would lie in is not.
    """
    try:
        there, parent = os.path.lexists(folder), folder.absolute().parent.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"folder: {cut(str(folder))}: {error}", "give the path of a new folder") from error
    if there or not parent:
        what = "exists" if there else "lies in no folder that exists"
        raise InputError(f"folder: {cut(str(folder))} {what}", "give the path of a new folder")


def _write(source: Source, settings: LoadSettings, folder: Path) -> None:
    config = configuration(source)
    if source.adapter is not None:
        own = next((dtype for dtype in (config.dtype, config.text_config.dtype) if dtype is not None), torch.float32)
        as_it_is = replace(source, settings=replace(source.settings, dtype=str(own).removeprefix("torch.")))
        loaded = read_whole(as_it_is, settings, cut=False)
        loaded.processor.save_pretrained(folder)
        with unreported():
            loaded.model.save_pretrained(folder, max_shard_size=_SHARD)
        return
    if source.folder is not None:
        check_files(source.folder, processor=False)
    prompting(source, config).processor.save_pretrained(folder)
    with torch.device("meta"):
        empty: Any = AutoModelForImageTextToText.from_config(copy.deepcopy(config))
    config.architectures = [type(empty).__name__]
    config.save_pretrained(folder)
    generation: GenerationConfig = own_generation_config(source) or empty.generation_config
    generation.save_pretrained(folder)
    tensors = original_tensors(source)
    check_names(settings.model, empty, tensors)
    _save(settings.model, tensors, folder)


def _save(name: str, tensors: Mapping[str, Held], folder: Path) -> None:
    """Write tensors into files of some 2 GiB each, and their index."""
    shards: list[list[str]] = []
    total = 0
    for shard in _shards(name, tensors):
        total += sum(tensor.nbytes for tensor in shard.values())
        save_file(shard, folder / f"{len(shards)}.part", metadata={"format": "pt"})
        shards.append(list(shard))
    if len(shards) == 1:
        (folder / "0.part").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"{number}.part").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(name: str, tensors: Mapping[str, Held]) -> Iterator[dict[str, Tensor]]:
    """Read the tensors, as many at a time as go into a file, under the names of published checkpoints."""
    shard: dict[str, Tensor] = {}
    size = 0
    for key, held in tensors.items():
        tensor = held[...].clone(memory_format=torch.contiguous_format)  # of its own: files refuse what shares memory
        check_finite(name, [(key, tensor)])
        if shard and size + tensor.nbytes > _SHARD:
            yield shard
            shard, size = {}, 0
        shard[published_name(key)] = tensor
        size += tensor.nbytes
    yield shard


def _flush(path: Path) -> None:
    """See that a file is on the disk, so that the folder is whole after a crash as well."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
