"""What is asked of the hub and its local cache beside `from_pretrained`: is it there, and where do files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, try_to_load_from_cache
from transformers.utils import cached_file

from adafv.loading.files import WEIGHTS, shards_of


def hub_answers() -> bool:
    """Ask the hub once, without retries, so that a machine without network goes on to its local cache at once.

    The hub's client would try each file six times, for half a minute in all.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # the client's errors share no class with those of its versions before
        return False
    return True


def downloaded(repository: str, hub: dict[str, Any]) -> Path:
    """Find the folder of the local cache that a loaded checkpoint lies in.

    Args:
        repository: its id.
        hub: keyword arguments of `from_pretrained`.
    """
    config = try_to_load_from_cache(repository, "config.json", revision=hub["revision"])
    if not isinstance(config, str):
        raise FileNotFoundError(f"{repository} is not in the local cache")
    return Path(config).parent


def hub_options(*, offline: bool, folder: bool, revision: str | None = None) -> dict[str, Any]:
    """Make what every `from_pretrained` is told about the hub.

    Args:
        offline: never touch the network.
        folder: what is loaded is a folder of this machine.
        revision: on the hub.
    """
    cached_only = folder or offline or not hub_answers()
    return {"revision": revision, "local_files_only": cached_only, "trust_remote_code": False}


def without_code(hub: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only `Auto` classes take."""
    return {key: value for key, value in hub.items() if key != "trust_remote_code"}


def find(place: str, name: str, hub: dict[str, Any]) -> Path | None:
    """Find a file of a folder or a repository, which is fetched; `None` where there is none.

    Args:
        place: a folder or a hub id.
        name: of the file.
        hub: keyword arguments of `from_pretrained`.
    """
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = cached_file(place, name, **without_code(hub), **quiet)
    return None if found is None else Path(found)


def fetched_weights(repository: str, hub: dict[str, Any]) -> list[Path]:
    """Fetch the files that hold a repository's weights, in transformers' order of preference.

    Raises:
        OSError: there are none, or one cannot be fetched.
        CheckpointError: an index that is no index.
    """
    for whole in WEIGHTS:
        if (path := find(repository, whole, hub)) is not None:
            return [path]
        if (index := find(repository, f"{whole}.index.json", hub)) is not None:
            return [Path(cached_file(repository, name, **without_code(hub))) for name in shards_of(index)]
    raise OSError(f"{repository} holds no {' or '.join(WEIGHTS)}")
