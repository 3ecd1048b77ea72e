"""Whether the hub can be reached, asked once before anything is loaded from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, try_to_load_from_cache


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
