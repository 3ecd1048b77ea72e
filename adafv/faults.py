"""Turns the many ways in which loading can fail into errors that name the cause and the cure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from adafv.errors import CheckpointError, DeviceError
from adafv.settings import LoadSettings

_AGAIN = "fetch the checkpoint again"
_EXAMPLE = "use a LLaVA checkpoint, for example llava-hf/llava-1.5-7b-hf"


def check_files(folder: Path) -> None:
    """What can be seen of a local checkpoint without reading its weights.

    Raises:
        CheckpointError: no config.json, not JSON, no weights, a shard missing or cut off.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(f"model: {folder} holds no config.json", "give a Hugging Face checkpoint folder")
    _read_json(config)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted({str(name) for name in _read_json(index).get("weight_map", {}).values()})
    else:
        shards = [path.name for path in sorted(folder.glob("model*.safetensors"))]
    if not shards and not any(folder.glob("pytorch_model*.bin")):
        raise CheckpointError(f"model: {folder} holds no weights (model.safetensors)", _AGAIN)
    for shard in shards:
        _check_shard(folder / shard)


def _read_json(path: Path) -> dict[str, dict[str, object]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"model: {path} is not valid JSON: {error}", _AGAIN) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"model: {path} is not a JSON object", _AGAIN)
    return content


def _check_shard(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"model: the shard {path} is missing", _AGAIN)
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise CheckpointError(f"model: {path} is cut off or damaged: {error}", _AGAIN) from error


@contextmanager
def explained(settings: LoadSettings) -> Iterator[None]:
    """Re-raise what transformers, safetensors and accelerate raise as our own errors."""
    name = settings.model
    try:
        yield
    except (CheckpointError, DeviceError):
        raise
    except ImportError as error:
        wanted = settings.quantize or settings.attention
        raise DeviceError(
            f"{wanted} needs a package that is not installed: {_first_line(error)}",
            "pip install bitsandbytes" if settings.quantize else "install it, or use --attention sdpa",
        ) from error
    except SafetensorError as error:
        raise CheckpointError(f"model: a weight file of {name} is cut off or damaged: {error}", _AGAIN) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise DeviceError(
                f"model: {name} does not fit the device's memory",
                "use --device-map auto, --quantize int4 or a CPU",
            ) from error
        what, fix = _reason(name, settings, error)
        raise CheckpointError(what, fix) from error


def _reason(name: str, settings: LoadSettings, error: Exception) -> tuple[str, str]:
    said = str(error)
    offline = settings.offline or "offline" in said.lower() or "couldn't connect" in said.lower()
    if isinstance(error, OSError) and offline and not Path(name).is_dir():
        return (
            f"model: {name} is not in the local cache and the hub cannot be reached",
            "connect (and leave out --offline), or give a local checkpoint folder",
        )
    if "gated" in said.lower() or "401" in said:
        return (
            f"model: {name} is gated or private",
            "ask for access on its page, then log in with `hf auth login`",
        )
    if isinstance(error, OSError) and "not a valid model identifier" in said:
        return (
            f"model: there is no folder and no hub repository {name}",
            "check the spelling; the form is owner/name",
        )
    if "model type" in said or "model_type" in said or "Unrecognized" in said:
        return f"model: {name} is not a LLaVA checkpoint: {_first_line(error)}", _EXAMPLE
    return f"model: {name} cannot be loaded: {_first_line(error)}", "look with -vv, or " + _AGAIN


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
