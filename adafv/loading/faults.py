"""Turns what the libraries raise while they load a checkpoint into errors that name the cause and the cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import constants

from adafv.demo import BUNDLED
from adafv.errors import AdaFVError, CheckpointError, DeviceError, cut
from adafv.memory import is_out_of_memory
from adafv.settings import LoadSettings

AGAIN = "fetch the checkpoint again"
EXAMPLE = "use a LLaVA checkpoint, for example llava-hf/llava-1.5-7b-hf"


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
        (),
        "FlashAttention",
        DeviceError,
        "--attention flash_attention_2 cannot be used here: {said}",
        "use --attention sdpa",
    ),
    _Rule(("ImportError",), "", DeviceError, "model: {name} needs a package that is missing: {said}", "install it"),
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
        "custom code which must be executed",
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
    _Rule(
        (),
        "load image processor",
        CheckpointError,
        "model: {name}: preprocessor_config.json is missing or wrong",
        AGAIN,
    ),
    _Rule(
        (),
        "Unrecognized image processor",
        CheckpointError,
        "model: {name}: preprocessor_config.json is missing or wrong",
        AGAIN,
    ),
    _Rule((), "backend tokenizer", CheckpointError, "model: {name}: tokenizer.json is missing or wrong", AGAIN),
    _Rule((), "Validation error", CheckpointError, "model: {name}: config.json is wrong: {said}", AGAIN),
    _Rule((), "", CheckpointError, "model: {part} of {name} cannot be loaded: {said}", f"look with -vv, or {AGAIN}"),
)


@contextmanager
def explained(settings: LoadSettings, part: str, *, cached_only: bool = False) -> Iterator[None]:
    """Re-raise whatever the libraries raise while they load as our own errors.

    Args:
        settings: what is being loaded.
        part: which part of it.
        cached_only: nothing may be, or can be, fetched from the hub.
    """
    try:
        yield
    except AdaFVError:
        raise
    except Exception as error:  # damaged files make the libraries raise nearly anything
        if cached_only and isinstance(error, OSError) and not _is_here(settings.model):
            raise _not_cached(settings) from error
        raise _explanation(settings, part, error) from error


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what it lies in is not there
        return False


def _is_here(model: str) -> bool:
    return model in BUNDLED or Path(model).expanduser().is_dir()


@contextmanager
def rehearsed(name: str, part: str, passing: tuple[type[AdaFVError], ...] = ()) -> Iterator[None]:
    """Re-raise whatever a checkpoint's own files make of a first try as an error of the checkpoint.

    Args:
        name: of the checkpoint, as the user gave it.
        part: which part of it is tried, with the names of its files.
        passing: errors that are not the checkpoint's.

    Raises:
        CheckpointError: names both.
    """
    try:
        yield
    except AdaFVError as error:
        if isinstance(error, (DeviceError, *passing)):
            raise
        what = error.what if name in error.what else f"model: {name}: {part}: {error.what}"
        raise CheckpointError(what, error.fix or AGAIN) from error
    except Exception as error:  # templates and image processors are somebody else's programs
        said = cut(" ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:2]]))
        raise CheckpointError(f"model: {name}: {part} cannot be used: {said}", AGAIN) from error


def _explanation(settings: LoadSettings, part: str, error: Exception) -> AdaFVError:
    if any(map(is_out_of_memory, _chain(error))):
        smaller = "use --device-map auto, --max-memory, --quantize int4 or a smaller --dtype"
        return DeviceError(f"model: {settings.model} does not fit into memory", smaller)
    said = str(error)
    kinds = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    rule = next(rule for rule in _RULES if rule.text in said and (not rule.kinds or not kinds.isdisjoint(rule.kinds)))
    first = " ".join([type(error).__name__ + ":", *said.strip().splitlines()[:2]])
    words = {
        "name": settings.model,
        "part": part,
        "revision": settings.revision,
        "quantize": settings.quantize,
        "said": cut(first),
    }
    return rule.error(rule.what.format(**words), rule.fix)


def _not_cached(settings: LoadSettings) -> CheckpointError:
    if settings.offline:
        why, fix = "--offline forbids the network", "connect and leave out --offline"
    elif constants.HF_HUB_OFFLINE:
        why, fix = "HF_HUB_OFFLINE forbids the network", "connect and unset HF_HUB_OFFLINE"
    else:
        why, fix = "the hub cannot be reached", "connect"
    return CheckpointError(
        f"model: {settings.model} is no folder here and not (completely) in the local cache, and {why}",
        f"{fix}, or give a local checkpoint folder",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
