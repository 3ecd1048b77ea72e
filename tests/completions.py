"""A small server of completions around a language model of transformers, which can be told to fail.

It speaks what `vllm serve --enable-prompt-embeds` speaks, honestly: embeddings are decoded as they came.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

_RESET = struct.pack("ii", 1, 0)  # linger for no time: whoever waits is reset

Fault = Callable[[torch.Tensor], str | None]
"""What becomes of a prompt (L, D): `None` to answer it, or die, hang, 500, 503, 400, cut, or dumb (no ids)."""


class Completions:
    """A server in threads of this process.

    Args:
        model: a LLaVA of transformers; its language model answers.
        fault: asked about each prompt but greetings.
        key: that is asked for.
        embeds: whether prompt embeddings are taken.
        limit: what it says of its context.
        revives: whether it is started again when it has died of a prompt.
    """

    def __init__(
        self,
        model: Any,
        fault: Fault | None = None,
        *,
        key: str | None = None,
        embeds: bool = True,
        limit: int = 4096,
        revives: bool = False,
    ) -> None:
        self.revives = revives
        self.model, self.fault, self.key, self.embeds, self.limit = model, fault, key, embeds, limit
        self.asked: list[dict[str, Any]] = []  # but greetings
        self.in_flight = self.most = self.greeted = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock, self._computing = threading.Lock(), threading.Lock()
        self.port = 0
        self._gone = threading.Event()
        self._gone.set()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, at the same port as before, once whoever is dying there is gone."""
        assert self._gone.wait(10)
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        self.alive = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def die(self) -> None:
        """Reset everybody, and be gone."""
        with self._lock:
            if not self.alive:
                return
            self.alive = False
        self._server.reset()
        self._server.shutdown()
        self._server.server_close()
        self._gone.set()

    def _die_of_it(self) -> None:
        self.die()
        if self.revives:  # as a supervisor would see to
            self.start()

    def complete(self, asked: dict[str, Any]) -> tuple[int, Any]:
        """Status and reply."""
        if "prompt_embeds" in asked:
            if not self.embeds:
                return 400, {"error": {"message": "You must set `--enable-prompt-embeds` to input `prompt_embeds`"}}
            prompt = torch.load(io.BytesIO(base64.b64decode(asked["prompt_embeds"])), weights_only=True)
        else:
            prompt = self.model.get_input_embeddings()(torch.tensor(asked["prompt"]))
        if prompt.shape[1] != self.model.config.text_config.hidden_size:
            return 400, {"error": {"message": "hidden size does not fit"}}
        greeting = asked["ignore_eos"]
        said = self.fault(prompt) if self.fault and not greeting else None
        with self._lock:
            if greeting:
                self.greeted += 1
            else:
                self.asked.append(asked)
        if said == "die" and self._gone.is_set():
            self._gone.clear()
            threading.Thread(target=self._die_of_it).start()
        if said in ("die", "hang", "cut"):
            return 0, said
        if said == "dumb":
            return 200, {"choices": [{"text": "red", "finish_reason": "stop"}]}
        if said is not None:
            return int(said), {"error": {"message": f"told to say {said}"}}
        ids = self._generate(prompt, asked)
        stopped = ids[-1] in asked.get("stop_token_ids", [])
        return 200, {"choices": [{"token_ids": ids, "finish_reason": "stop" if stopped else "length"}]}

    def _generate(self, prompt: torch.Tensor, asked: dict[str, Any]) -> list[int]:
        ends = [] if asked["ignore_eos"] else asked["stop_token_ids"]
        with self._computing, torch.inference_mode():
            ids: list[int] = self.model.generate(
                inputs_embeds=prompt[None], attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=asked["max_tokens"], do_sample=False, eos_token_id=ends or [2**30],
            )[0].tolist()  # fmt: skip
        return ids


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, address: Any) -> None:
        self.open.add(request)
        super().process_request(request, address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def reset(self) -> None:
        for one in list(self.open):
            with suppress(OSError):  # it was answered meanwhile
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, address: Any) -> None:
        """Say nothing: connections break here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    owner: Completions

    def do_GET(self) -> None:
        served = [{"id": "served", "root": "elsewhere", "max_model_len": self.owner.limit}]
        self._reply(*(self._refused() or (200, {"data": served} if self.path == "/v1/models" else {})))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.owner
        with owner._lock:
            owner.in_flight += 1
            owner.most = max(owner.most, owner.in_flight)
        try:
            owner.gate.wait(10)
            status, content = self._refused() or owner.complete(asked)
        finally:
            with owner._lock:
                owner.in_flight -= 1
        if content == "hang":
            threading.Event().wait(2)
        elif status:
            self._reply(status, content)
        elif content == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

    def _refused(self) -> tuple[int, Any] | None:
        wanted = self.owner.key
        if wanted is not None and self.headers["Authorization"] != f"Bearer {wanted}":
            return 401, {"error": "Unauthorized"}
        return None

    def _reply(self, status: int, content: Any) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
