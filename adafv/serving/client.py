"""Asks one server over HTTP, and says of everything that can go wrong what it means."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any

from adafv.errors import cut
from adafv.serving.addresses import Address

_BUSY = (429, 502, 503, 504)


class Trouble(Exception):
    """A server that gave no answer, for a reason that is not the question's."""


class Away(Trouble):
    """Nobody is there, or not the one who was: the question was not looked at."""


class Strange(Away):
    """An answer that nobody who was greeted should give: it is another server, or it is this question after all.

    Args:
        server: that gave it.
        status: of HTTP.
        message: what it said, or what is wrong with it.
    """

    def __init__(self, server: str, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(f"{server}: {message} ({status})")


class Busy(Trouble):
    """It is there and asks for patience."""


class Struck(Trouble):
    """It failed while it had the question: perhaps because of it."""


class Unwanted(Exception):
    """It understood the question, and will not answer it.

    Args:
        status: of HTTP.
        message: the server's own.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(f"{status}: {message}")


class Client:
    """Speaks to one server, a connection for each request: one that idles may be closed at any moment.

    Args:
        address: of the server.
        key: sent as a bearer token, where there is one.
    """

    def __init__(self, address: Address, key: str | None = None) -> None:
        self.address = address
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        self._headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self._tls = ssl.create_default_context() if address.tls else None

    def ask(self, path: str, content: Mapping[str, Any] | None = None, *, timeout_s: float) -> Any:
        """Get a path, or post JSON to it, and read the JSON that comes back.

        Args:
            path: begins with a slash.
            content: what to post; without it, the path is read.
            timeout_s: the longest silence that is waited for.

        Raises:
            Trouble: no answer.
            Unwanted: an answer that says no.
        """
        body = None if content is None else json.dumps(content, allow_nan=False).encode()
        connection = self._connection(timeout_s)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise Away(f"{self.address}: {_reason(error)}") from None
            try:
                connection.request("GET" if body is None else "POST", path, body, self._headers)
                reply = connection.getresponse()
                status, raw = reply.status, reply.read()
            except TimeoutError:
                raise Struck(f"{self.address} has not answered for {timeout_s:g} s") from None
            except (OSError, http.client.HTTPException) as error:
                raise Struck(f"{self.address} broke off: {_reason(error)}") from None
        finally:
            connection.close()
        return self._read(status, raw)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _read(self, status: int, raw: bytes) -> Any:
        try:
            found = json.loads(raw) if raw else None
        except (ValueError, RecursionError):
            found = None
        if status == http.client.OK:
            if found is None:
                raise Struck(f"{self.address} answered with something that is no JSON")
            return found
        message = cut(_message(found) or raw.decode(errors="replace").strip() or "no reason given")
        if status in _BUSY:
            raise Busy(f"{self.address} is busy ({status}: {message})")
        if status >= http.client.INTERNAL_SERVER_ERROR:
            raise Struck(f"{self.address} failed ({status}: {message})")
        raise Unwanted(status, message)


def _message(found: Any) -> str:
    """Find the sentence in an error of the API, whichever of its two forms it has."""
    inner = found.get("error", found) if isinstance(found, dict) else found
    message = inner.get("message", inner.get("detail", "")) if isinstance(inner, dict) else inner
    return " ".join(str(message or "").split())


def _reason(error: Exception) -> str:
    return cut(str(getattr(error, "strerror", None) or error) or type(error).__name__)
