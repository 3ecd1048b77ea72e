"""Writes whole files: a reader sees the old one or the new one, also after a crash."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adafv.errors import AdaFVError
from adafv_cli.files import descriptor, figure_format, written_into


def write_figure(flag: str, path: Path, render: Callable[[str], bytes]) -> None:
    """Draw and write; `render` takes the format.

    Raises:
        AdaFVError: it cannot be written.
    """
    content = render(figure_format(path))
    try:
        write_bytes(path, content)
    except OSError as error:
        raise AdaFVError(f"{flag}: cannot write {path}: {error.strerror}", "check the disk") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write one JSON object as `write_bytes` does.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, also after a crash; into what is no file, write.

    Raises:
        OSError: it cannot be written.
    """
    if written_into(path):
        number = descriptor(path)
        with os.fdopen(os.open(path, os.O_WRONLY) if number is None else os.dup(number), "wb") as stream:
            stream.write(content)
        return
    target = path.resolve()
    temporary = target.with_name(f".adafv-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
