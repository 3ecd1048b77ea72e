"""Reads the addresses of servers, and refuses those that would send a user's data in the open."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from adafv.errors import InputError, shown

_FIX = "give http://127.0.0.1:8000, or several with commas between them"


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


def addresses(text: str, *, insecure: bool = False) -> list[Address]:
    """Read `URL[,URL...]`.

    Args:
        text: as the user wrote it.
        insecure: whether plain http may leave this machine.

    Raises:
        InputError: what is no address, is there twice, holds a password, or would leave this machine in the open.
    """
    found = [_address(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise InputError(f"server: {shown(text)} names none", _FIX)
    for number, one in enumerate(found):
        if one in found[:number]:
            raise InputError(f"server: {one} is there twice", "name each server once")
        if not one.tls and not one.is_loopback and not insecure:
            what = f"server: {one} is another machine, and http is open to whoever is between"
            raise InputError(what, "use https://, or --server-insecure where the network is trusted")
    return found


def _address(text: str) -> Address:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InputError(f"server: {shown(text)}: {error}", _FIX) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"server: {shown(text)} is no web address", _FIX)
    if parts.username is not None or parts.password is not None:
        raise InputError("server: an address with a user or password in it", "put the key into ADAFV_SERVER_KEY")
    if parts.path.strip("/") not in ("", "v1") or parts.query or parts.fragment:
        raise InputError(f"server: {shown(text)} has more than host and port", _FIX)
    tls = parts.scheme == "https"
    return Address(parts.hostname, port if port is not None else 443 if tls else 80, tls)
