"""Keeps encoded images in a folder between runs, so that another sweep, pruner or resumed run encodes nothing again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adafv.encoding import ImageEncoding
from adafv.errors import InputError, cut

log = logging.getLogger(__name__)

_SUFFIX = ".encoding.safetensors"
_FORM = 1  # of what is kept: another number where saliency or packing come out otherwise
_LOOKS = 32  # times that the folder is looked at while as much as its limit is written
_DIGEST = "sha256"  # of all tensors: a damaged file loads without any other sign


class EncodingStore:
    """A folder of encodings, one file each, bounded in bytes: the least recently used leave first.

    Several processes may share a folder: a file appears when it is complete, and one that goes is made anew. Only files
    of this kind are ever removed. What cannot be written (a full disk) is logged, and nothing more is written.

    Args:
        folder: made where it is missing.
        fingerprint: of everything but the image that an encoding depends on; others' files are not seen.
        limit_bytes: of all encodings in the folder, whatever they were made with.
        device: that encodings are moved to when they are read.

    Raises:
        InputError: a folder that cannot be made or written to.
    """

    def __init__(self, folder: str | Path, fingerprint: str, limit_bytes: int, device: torch.device) -> None:
        self._folder, self._fingerprint, self._limit, self._device = Path(folder), fingerprint, limit_bytes, device
        self._writes = True
        self.read = self.written = self.bytes_written = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._bytes, self._since_look = sum(size for _, size, _ in self._files()), 0
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "not writable")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            what = f"encodings: {cut(str(folder))} cannot be written to: {reason}"
            raise InputError(what, "give the path of a folder") from error

    def __contains__(self, key: str) -> bool:
        """Tell whether there is a file for the image of that content key; may be asked from any thread."""
        return self._path(key).exists()

    def tokens(self, key: str) -> tuple[int, int] | None:
        """Read how many candidates and how many tokens an image has; `None` where nothing tells."""
        with suppress(OSError, KeyError, SafetensorError), safe_open(self._path(key), framework="pt") as file:
            visual, packed = (file.get_slice(name).get_shape()[0] for name in ("candidates", "packed"))
            return int(visual), int(packed)
        return None

    def load(self, key: str) -> ImageEncoding | None:
        """Read an encoding; `None` where there is none, or none that is whole: that file is removed."""
        path = self._path(key)
        try:
            encoding = _read(path)
        except OSError:  # not there, or not to be read just now
            return None
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("%s is damaged and will be made anew: %s", path, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # somebody else's file
            os.utime(path)  # used now, so it leaves last
        self.read += 1
        return encoding.to(self._device)

    def save(self, key: str, encoding: ImageEncoding) -> None:
        """Write an encoding, and let the oldest go where that takes more than the limit."""
        if not self._writes or encoding.bytes > self._limit:
            return
        path, content = self._path(key), _content(encoding)
        temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            log.warning("no more encodings are written to %s: %s", self._folder, error)
            self._writes = False
            return
        self.written += 1
        self.bytes_written += len(content)
        self._since_look += len(content)
        if self._bytes + self._since_look > self._limit or self._since_look > self._limit // _LOOKS:
            self._shrink()

    def _shrink(self) -> None:
        """Look at the whole folder, which others write into as well, and remove what is too much."""
        files = sorted(self._files())
        self._bytes, self._since_look = sum(size for _, size, _ in files), 0
        for _, size, path in files:
            if self._bytes <= self._limit:
                return
            with suppress(OSError):
                path.unlink(missing_ok=True)
            self._bytes -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """List when each file was last used, its size, and its path; one that goes meanwhile is none.

        Half a file that a killed process left behind is one, too, and old.
        """
        found = []
        for path in (*self._folder.glob(f"*{_SUFFIX}"), *self._folder.glob(f".*{_SUFFIX}-*.tmp")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(f"{_FORM} {self._fingerprint} {key}".encode()).hexdigest()
        return self._folder / f"{name}{_SUFFIX}"


_PLAIN = ("crops", "grids")  # fields that are no tensors


def _content(encoding: ImageEncoding) -> bytes:
    # Clones, since some share their memory (candidates are the cells where there is one crop), and files do not.
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in encoding.tensors.items()}
    rest = {name: value for name, value in vars(encoding).items() if name in _PLAIN}
    content: bytes = save(tensors, {"encoding": json.dumps(rest), _DIGEST: _digest(tensors)})
    return content


def _read(path: Path) -> ImageEncoding:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata() or {}
    if metadata[_DIGEST] != _digest(tensors):
        raise ValueError("its content is not what was written")
    rest: dict[str, Any] = json.loads(metadata["encoding"])
    grids = tuple((int(rows), int(columns)) for rows, columns in rest["grids"])
    return ImageEncoding(**tensors, crops=int(rest["crops"]), grids=grids)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
