"""Whether the hub can be reached, asked once before anything is loaded from it."""

from __future__ import annotations

from huggingface_hub import constants, get_session


def hub_answers() -> bool:
    """One request without retries, so that a machine without network goes on to its local cache at once.

    The hub's client would try each file six times, for half a minute in all.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # the client's errors share no class with those of its versions before
        return False
    return True
