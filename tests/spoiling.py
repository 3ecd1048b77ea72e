"""Ways to spoil a checkpoint's folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Edit = Callable[[Path], None]


def without(*names: str) -> Edit:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def written(name: str, text: str) -> Edit:
    return lambda folder: (folder / name).write_text(text) and None


def config(**changes: Any) -> Edit:
    """Fields of config.json changed; `None` deletes."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in content.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return edit


def part(name: str, **changes: Any) -> Edit:
    """Fields of a part of config.json changed."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        content[name] |= changes
        (folder / "config.json").write_text(json.dumps(content))

    return edit


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Edit:
    def edit(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def tensors_of(file: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Edit:
    """The tensors of one of several weight files replaced."""
    return lambda folder: save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})


def added(token: str, number: int) -> Edit:
    """A token more in tokenizer.json; the library gives it the next free id."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        content["added_tokens"].append(content["added_tokens"][0] | {"id": number, "content": token})
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return edit


def less(name: str) -> Edit:
    return tensors(lambda held: held.__delitem__(name))


def more(name: str, shape: tuple[int, ...]) -> Edit:
    return tensors(lambda held: held.update({name: torch.zeros(shape)}))


def spoiled(name: str, value: float) -> Edit:
    return tensors(lambda held: held[name].view(-1)[3:4].fill_(value) and None)


def cut(name: str, size: int) -> Edit:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def sharded(break_it: Edit = lambda folder: None) -> Edit:
    """Weights in two files with an index, then broken."""

    def edit(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(held)
        halves = {f"model-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
        for file, keys in halves.items():
            save_file({key: held[key] for key in keys}, folder / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {key: file for file, keys in halves.items() for key in keys}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        break_it(folder)

    return edit


def pickled(source: Path, folder: Path) -> Path:
    """A copy with its weights in pytorch_model.bin alone."""
    shutil.copytree(source, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))
