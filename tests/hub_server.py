"""A hub on this machine, for tests of what happens with and without one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from transformers.utils.hub import hf_api

COMMIT = "0" * 40
REFUSED = {  # status and the error code by which the hub's client tells why
    "them/gated": (403, "GatedRepo"),
    "them/secret": (401, "RepoNotFound"),
    "them/nothing": (404, "RepoNotFound"),
}


@contextmanager
def hub(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serves `folder` as us/tiny and refuses the rest; yields the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, send: bool) -> None:
            asked.append(self.path)
            parts = self.path.strip("/").split("/")
            repository = "/".join(parts[:2])
            path = folder / parts[-1]
            if repository in REFUSED:
                self._refuse(*REFUSED[repository])
            elif repository != "us/tiny" or len(parts) != 5:  # the front page and the programming interface
                self._refuse(404, "EntryNotFound")
            elif parts[3] not in ("main", COMMIT):
                self._refuse(404, "RevisionNotFound")
            elif not path.is_file():
                self._refuse(404, "EntryNotFound")
            else:
                content = path.read_bytes()
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if send:
                    self.wfile.write(content)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    use(f"http://127.0.0.1:{server.server_port}", cache, monkeypatch)
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def use(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client, which read its environment when it was imported, look there."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", endpoint)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_api(), "endpoint", endpoint)
    # The client asks the hub once a process who may be running it, when it is first used: by whichever test that is.
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", {}, raising=False)
