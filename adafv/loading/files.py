"""What can be seen of a local checkpoint before anything is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from adafv.errors import CheckpointError, cut
from adafv.loading.faults import AGAIN

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # or an index of several such files; in order of preference
_READ_QUIETLY = (  # transformers goes on without some of these, and names none in its errors
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)


def check_config(folder: Path) -> None:
    """Check that a local checkpoint has a configuration at all.

    Raises:
        CheckpointError: no config.json, or not JSON.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"model: {folder} holds no config.json", "give a Hugging Face checkpoint folder")
    read_json(folder / "config.json")


def check_files(folder: Path, *, processor: bool = True) -> None:
    """Check what can be seen of a local checkpoint's other files without reading the weights.

    Args:
        folder: of the checkpoint.
        processor: whether it has to have an image processor of its own.

    Raises:
        CheckpointError: a file that is missing, cut off or not JSON.
    """
    check_texts(folder)
    for path in weight_files(folder):
        _check_weights(path)
    wanted = {"tokenizer": TOKENIZERS} | ({"image processor": PROCESSORS} if processor else {})
    for what, names in wanted.items():
        if not any((folder / name).is_file() for name in names):
            raise CheckpointError(f"model: {folder} holds no {what} ({' or '.join(names)})", AGAIN)


def check_texts(folder: Path) -> None:
    """Read every small file once, as transformers would.

    Raises:
        CheckpointError: one that is cut off or not JSON.
    """
    for path in (folder / name for name in _READ_QUIETLY):
        if path.is_file():
            read_json(path)


def weight_files(folder: Path) -> list[Path]:
    """List the files that transformers will read the weights from, in its order of preference.

    Raises:
        CheckpointError: there are none, or an index that is no index.
    """
    for whole in WEIGHTS:
        if (folder / whole).is_file():
            return [folder / whole]
        index = folder / f"{whole}.index.json"
        if index.is_file():
            return [folder / name for name in shards_of(index)]
    shards = [path.name for path in sorted(folder.glob("*.safetensors"))]
    if shards:
        raise CheckpointError(f"model: {folder} holds {shards[0]}, but no model.safetensors.index.json", AGAIN)
    raise CheckpointError(f"model: {folder} holds no weights (model.safetensors)", AGAIN)


def shards_of(index: Path) -> list[str]:
    """List the weight files that an index names.

    Raises:
        CheckpointError: it is no index.
    """
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"model: {index} has no weight_map", AGAIN)
    for name in files.values():
        if not _is_file_name(name):
            what = f"model: {index} names a weight file {cut(repr(name), 60)}, which is no file's name"
            raise CheckpointError(what, AGAIN)
    return sorted(set(files.values()))


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name.encode("utf-8", "replace")) < 256 and Path(name).name == name


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        CheckpointError: it does not.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"model: {path} is not valid JSON: {error}", AGAIN) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"model: {path} is not a JSON object", AGAIN)
    return content


def _check_weights(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"model: the weight file {path} is missing", AGAIN)
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"model: {path} is cut off or damaged: {error}", AGAIN) from error
