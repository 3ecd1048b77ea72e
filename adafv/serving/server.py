"""Makes sure of one server: that it is there, takes prompt embeddings, and has the same language model as we."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from adafv.decoding import Decoded
from adafv.errors import ServerError, cut, shown
from adafv.serving.client import Client, Strange, Struck, Trouble, Unwanted
from adafv.serving.wire import COMPLETIONS, MODELS, greedy, read

_PROBED = 8  # tokens that have to be the same
_TRIES = 3  # a busy server may compute in another order, and a near tie fall the other way
_GREETING_S = 60.0
FRESH_S = 10.0  # after such a silence it may have been started anew, with something else; none starts as fast
_USUAL_PORT = 8000


@dataclass(frozen=True)
class Probe:
    """One text as token ids, and as their embeddings packed for the wire."""

    ids: list[int]
    embeddings: str


def serve_line(model: str, dtype: str, port: int) -> str:
    """Write the command that starts a server for a checkpoint; `dtype` as in `LoadSettings`."""
    flags = ["--language-model-only", "--enable-prompt-embeds", *(["--dtype", dtype] if dtype != "auto" else [])]
    return shlex.join(["vllm", "serve", model, *flags, *(["--port", str(port)] if port != _USUAL_PORT else [])])


class Server:
    """One server.

    Args:
        client: speaks to it.
        start: the command that would have started it rightly.
        model: the checkpoint's name on our side.
    """

    def __init__(self, client: Client, start: str, model: str) -> None:
        self._client, self._start, self._model = client, start, model
        self.name = ""  # of the model, as it calls it
        self.limit: int | None = None  # positions that it has for prompt and answer
        self.in_flight, self.trusted, self.reserved = 0, True, False  # the fleet's own
        self._heard = -FRESH_S
        self._greeting = threading.Lock()

    def __str__(self) -> str:
        return str(self._client.address)

    def look(self) -> None:
        """Ask which model it has.

        Raises:
            Trouble: it does not answer.
            ServerError: it speaks another protocol, or wants a key.
        """
        try:
            found = self._client.ask(MODELS, timeout_s=_GREETING_S)
            models = [one for one in found["data"] if isinstance(one.get("id"), str)]
            same = [one for one in models if self._model in (one["id"], one.get("root"))]
            chosen = (same or [one for one in models if not one.get("parent")] or models)[0]
        except Unwanted as refusal:
            raise self._refused(refusal) from None
        except (Struck, TypeError, KeyError, IndexError, AttributeError) as error:
            if isinstance(error, Struck) and "JSON" not in str(error):
                raise
            raise self._wrong("is no server of completions: it lists no models") from None
        limit = chosen.get("max_model_len")
        self.name, self.limit = chosen["id"], limit if isinstance(limit, int) else None

    def greet(self, probe: Probe) -> None:
        """Make sure of it: one text must get the same tokens as ids and as embeddings.

        Raises:
            Trouble: it does not answer.
            ServerError: it has another model, does not take embeddings, or is too old.
        """
        self.look()
        for _ in range(_TRIES):
            by_ids = self._probed({"prompt": probe.ids})
            if by_ids.ids == self._probed({"prompt_embeds": probe.embeddings}).ids:
                self._heard = time.monotonic()
                return
        what = f"serves {shown(self.name)}, which is not our language model: it reads our embeddings as other words"
        raise self._wrong(what)

    def greet_after_silence(self, probe: Probe) -> None:
        """Make sure of it where it has not been heard of for a while; raises as `greet`."""
        with self._greeting:
            if time.monotonic() - self._heard >= FRESH_S:
                self.greet(probe)

    def complete(self, content: Mapping[str, Any], timeout_s: float) -> Decoded:
        """Have a prompt answered.

        Raises:
            Trouble: it was not.
            Unwanted: the server will not.
        """
        try:
            decoded = read(self._client.ask(COMPLETIONS, {"model": self.name, **content}, timeout_s=timeout_s))
            self._heard = time.monotonic()
            return decoded
        except ValueError as error:
            raise Strange(str(self), HTTPStatus.OK, str(error)) from None
        except Unwanted as refusal:
            if refusal.status in (401, 403, 404):  # it is not the one who was greeted
                raise Strange(str(self), refusal.status, refusal.message) from None
            raise

    def _probed(self, prompt: Mapping[str, Any]) -> Decoded:
        content = {"model": self.name, **greedy(_PROBED), **prompt}
        try:
            return read(self._client.ask(COMPLETIONS, content, timeout_s=_GREETING_S))
        except ValueError as error:
            raise self._wrong(f"is too old: {error}") from None
        except Unwanted as refusal:
            raise self._refused(refusal) from None

    def _refused(self, refusal: Unwanted) -> ServerError:
        if refusal.status in (401, 403):
            what = f"server: {self} wants another key ({refusal.message})"
            return ServerError(what, "put it into the environment: ADAFV_SERVER_KEY=... adafv ...")
        return self._wrong(f"refuses prompt embeddings ({refusal.status}: {cut(refusal.message)})")

    def _wrong(self, what: str) -> ServerError:
        return ServerError(f"server: {self} {what}", f"start it so: {self._start}")

    def missing(self, trouble: Trouble) -> ServerError:
        """Make the error of a server that was never there."""
        return ServerError(f"server: {trouble}", f"start it: {self._start}")
