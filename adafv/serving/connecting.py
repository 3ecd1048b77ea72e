"""Connects to the servers that a user named: looks whether they are there, then makes sure of each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from adafv.errors import DeviceError, ServerError
from adafv.serving.addresses import addresses
from adafv.serving.client import Client, Trouble
from adafv.serving.decoder import RemoteDecoder
from adafv.serving.fleet import Fleet
from adafv.serving.server import Probe, Server, serve_line
from adafv.serving.wire import packed
from adafv.settings import LoadSettings

KEY = "ADAFV_SERVER_KEY"
"""The environment variable that holds the servers' API key."""


def look_at(settings: LoadSettings, model: str) -> list[Server]:
    """Find out which model each server has, before any weight is read.

    Args:
        settings: name the servers.
        model: checkpoint folder or hub id, as a server would be started with.

    Raises:
        InputError: what is no address.
        DeviceError: one that is not there, or no server of completions.
    """
    servers = []
    for address in addresses(settings.server or "", insecure=settings.server_insecure):
        start = serve_line(model, settings.dtype, address.port)
        server = Server(Client(address, os.environ.get(KEY)), start, model)
        try:
            server.look()
        except Trouble as trouble:
            raise server.missing(trouble) from None
        servers.append(server)
    return servers


def connected(
    servers: Sequence[Server], settings: LoadSettings, ids: list[int], embeddings: Tensor, ends: Sequence[int]
) -> RemoteDecoder:
    """Greet every server, and make a decoder of them.

    Args:
        servers: of `look_at`.
        settings: how many requests, and how long each may take.
        ids, embeddings: of one text, (T,) and (T, D).
        ends: ids of the tokens that end an answer.

    Raises:
        DeviceError: one that is gone, has another model, or does not take embeddings.
    """
    probe = Probe(ids, packed(embeddings))
    for server in servers:
        try:
            server.greet(probe)
        except Trouble as trouble:
            raise server.missing(trouble) from None
        except ServerError as error:  # a setting of theirs, and no death of a run
            raise DeviceError(error.what, error.fix) from None
    return RemoteDecoder(Fleet(servers, probe), ends, settings.server_requests, settings.server_timeout)
