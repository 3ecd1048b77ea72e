"""Hub ids: with a hub, without one, and when it refuses. The hub is a server on this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from adafv import CheckpointError
from adafv.loading.checkpoint import load_checkpoint
from adafv.settings import LoadSettings
from tests.hub_server import hub, use

CLOSED = "http://127.0.0.1:9"  # nobody listens


def knocking(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Addresses that were tried, from now on; not twice: the client would wait and try again, for each file."""
    tried: list[object] = []
    connect = socket.socket.connect

    def knock(self: socket.socket, address: Any) -> None:
        if tried:
            pytest.fail(f"{address} was tried again")
        tried.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", knock)
    return tried


def test_from_the_hub_then_from_the_cache(llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(llava_folder, tmp_path, monkeypatch) as asked:
        fetched = load_checkpoint(LoadSettings("us/tiny", device_map="cpu"))
        assert any(path.endswith("/resolve/main/config.json") for path in asked)
    use(CLOSED, tmp_path, monkeypatch)
    knocks = knocking(monkeypatch)
    for offline, tries in ((False, 1), (True, 1)):  # the second one adds none
        cached = load_checkpoint(LoadSettings("us/tiny", device_map="cpu", offline=offline))
        assert len(knocks) == tries
        for one, other in zip(fetched.model.parameters(), cached.model.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    "name, revision, what, fix",
    [
        ("them/gated", None, "them/gated is gated", "hf auth login"),
        ("them/secret", None, "no public hub repository them/secret", "private"),
        ("them/nothing", None, "no public hub repository them/nothing", "spelling"),
        ("us/tiny", "v9", "us/tiny has no revision 'v9'", "--revision"),
    ],
)
def test_what_the_hub_refuses(
    name: str,
    revision: str | None,
    what: str,
    fix: str,
    llava_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with hub(llava_folder, tmp_path, monkeypatch), pytest.raises(CheckpointError) as caught:
        load_checkpoint(LoadSettings(name, revision=revision))
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    "offline, why, fix", [(False, "cannot be reached", "connect"), (True, "--offline", "leave out --offline")]
)
def test_without_network(offline: bool, why: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(CLOSED, tmp_path, monkeypatch)
    knocks = knocking(monkeypatch)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(LoadSettings("llava-hf/llava-1.5-7b-hf", offline=offline))
    assert len(knocks) == (not offline)
    assert "llava-hf/llava-1.5-7b-hf" in caught.value.what
    assert why in caught.value.what
    assert fix in caught.value.fix


def test_offline_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(CLOSED, tmp_path, monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        load_checkpoint(LoadSettings("us/tiny"))


def test_half_a_checkpoint_in_the_cache(llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(llava_folder, tmp_path, monkeypatch):
        load_checkpoint(LoadSettings("us/tiny", device_map="cpu"))
    use(CLOSED, tmp_path, monkeypatch)
    for path in tmp_path.rglob("model.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"not \(completely\) in the local cache"):
        load_checkpoint(LoadSettings("us/tiny"))


def test_a_folder_asks_nobody(llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(llava_folder, tmp_path, monkeypatch) as asked:
        load_checkpoint(LoadSettings(str(llava_folder)))
    assert asked == []
