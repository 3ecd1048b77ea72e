"""Turns the many ways in which loading can fail into errors that name the cause and the cure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from adafv.errors import AdaFVError, CheckpointError, DeviceError
from adafv.settings import LoadSettings

AGAIN = "fetch the checkpoint again"
EXAMPLE = "use a LLaVA checkpoint, for example llava-hf/llava-1.5-7b-hf"
_LONGEST = 200  # characters of a library's own words

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_READ_QUIETLY = (  # transformers goes on without some of these, and names none in its errors
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def check_config(folder: Path) -> None:
    """Whether a local checkpoint has a configuration at all.

    Raises:
        CheckpointError: no config.json, or not JSON.
    """
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"model: {folder} is an adapter, not a whole model", "merge it into its base model first")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"model: {folder} holds no config.json", "give a Hugging Face checkpoint folder")
    _read_json(folder / "config.json")


def check_files(folder: Path) -> None:
    """What can be seen of a local checkpoint without reading its weights.

    Raises:
        CheckpointError: a file that is missing, cut off or not JSON.
    """
    check_config(folder)
    for path in (folder / name for name in _READ_QUIETLY):
        if path.is_file():
            _read_json(path)
    for path in weight_files(folder):
        _check_weights(path)
    for what, names in (("tokenizer", _TOKENIZERS), ("image processor", _PROCESSORS)):
        if not any((folder / name).is_file() for name in names):
            raise CheckpointError(f"model: {folder} holds no {what} ({' or '.join(names)})", AGAIN)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers will read the weights from, in its order of preference.

    Raises:
        CheckpointError: there are none, or an index that is no index.
    """
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if (folder / whole).is_file():
            return [folder / whole]
        index = folder / f"{whole}.index.json"
        if index.is_file():
            files = _read_json(index).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise CheckpointError(f"model: {index} has no weight_map", AGAIN)
            return [folder / name for name in sorted({str(name) for name in files.values()})]
    shards = [path.name for path in sorted(folder.glob("*.safetensors"))]
    if shards:
        raise CheckpointError(f"model: {folder} holds {shards[0]}, but no model.safetensors.index.json", AGAIN)
    raise CheckpointError(f"model: {folder} holds no weights (model.safetensors)", AGAIN)


def _read_json(path: Path) -> dict[str, Any]:
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


@dataclass(frozen=True)
class _Rule:
    """What to say of an error: the first rule holds whose class names and text both occur, where it has them.

    Told by names, since the libraries keep the classes in different places from version to version.
    """

    kinds: tuple[str, ...]
    text: str
    error: type[AdaFVError]
    what: str
    fix: str


_RULES = (
    _Rule(
        ("ImportError",),
        "bitsandbytes",
        DeviceError,
        "--quantize needs bitsandbytes, which is not installed (or too old)",
        "pip install -U bitsandbytes, or leave out --quantize",
    ),
    _Rule(
        ("ImportError", "ValueError"),
        "flash",
        DeviceError,
        "--attention flash_attention_2 cannot be used here: {said}",
        "use --attention sdpa",
    ),
    _Rule(("ImportError",), "", DeviceError, "model: {name} needs a package that is missing: {said}", "install it"),
    _Rule(
        ("OutOfMemoryError", "MemoryError"),
        "",
        DeviceError,
        "model: {name} does not fit into memory",
        "use --device-map auto, --max-memory, --quantize int4 or a smaller --dtype",
    ),
    _Rule(
        (),
        "Some modules are dispatched on the CPU or the disk",
        DeviceError,
        "--quantize {quantize}: the device map offloads weights, which is not possible with quantized ones",
        "use --device-map cpu, a GPU that is large enough, or no --quantize",
    ),
    _Rule(
        (),
        "offload_folder",
        DeviceError,
        "model: {name} is not in safetensors format, so that offloading has to write its weights anew",
        "give a folder for them: --offload-folder FOLDER",
    ),
    _Rule(
        ("GatedRepoError",),
        "",
        CheckpointError,
        "model: {name} is gated",
        "ask for access on its hub page, then log in with `hf auth login`",
    ),
    _Rule(
        ("RepositoryNotFoundError",),
        "",
        CheckpointError,
        "model: there is no folder and no public hub repository {name}",
        "check the spelling (owner/name); if it is private, log in with `hf auth login`",
    ),
    _Rule(
        ("RevisionNotFoundError",),
        "",
        CheckpointError,
        "model: {name} has no revision {revision!r}",
        "give a branch, tag or commit of it (--revision)",
    ),
    _Rule(
        (),
        "trust_remote_code",
        CheckpointError,
        "model: {name} needs code of its own, which adafv never runs",
        EXAMPLE,
    ),
    _Rule(
        ("UnpicklingError",),
        "",
        CheckpointError,
        "model: the weights of {name} are a pickle that is damaged or holds more than tensors",
        "get them in safetensors format: a pickle can run code, so that this one is not read",
    ),
    _Rule((), "image processor", CheckpointError, "model: {name}: preprocessor_config.json is missing or wrong", AGAIN),
    _Rule((), "tokenizer", CheckpointError, "model: {name}: tokenizer.json is missing or wrong", AGAIN),
    _Rule((), "Validation error", CheckpointError, "model: {name}: config.json is wrong: {said}", AGAIN),
    _Rule((), "", CheckpointError, "model: {name} cannot be loaded: {said}", f"look with -vv, or {AGAIN}"),
)


@contextmanager
def explained(settings: LoadSettings, *, cached_only: bool = False) -> Iterator[None]:
    """Re-raise whatever the libraries raise while they load as our own errors.

    Args:
        settings: what is being loaded.
        cached_only: nothing may be, or can be, fetched from the hub.
    """
    try:
        yield
    except AdaFVError:
        raise
    except Exception as error:  # damaged files make the libraries raise nearly anything
        if cached_only and isinstance(error, OSError) and not Path(settings.model).expanduser().is_dir():
            raise _not_cached(settings) from error
        raise _explanation(settings, error) from error


def _explanation(settings: LoadSettings, error: Exception) -> AdaFVError:
    said = str(error)
    kinds = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    rule = next(rule for rule in _RULES if rule.text in said and (not rule.kinds or not kinds.isdisjoint(rule.kinds)))
    first = " ".join((said.strip().splitlines() or [type(error).__name__])[:2])
    words = {
        "name": settings.model,
        "revision": settings.revision,
        "quantize": settings.quantize,
        "said": first if len(first) <= _LONGEST else f"{first[:_LONGEST]}...",
    }
    return rule.error(rule.what.format(**words), rule.fix)


def _not_cached(settings: LoadSettings) -> CheckpointError:
    why = "--offline forbids the network" if settings.offline else "the hub cannot be reached"
    return CheckpointError(
        f"model: {settings.model} is no folder here and not (completely) in the local cache, and {why}",
        "connect" + (" and leave out --offline" if settings.offline else "") + ", or give a local checkpoint folder",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
