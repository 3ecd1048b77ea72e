"""Opens files for appending, each by one process at a time."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from adafv.errors import cut
from adafv_cli.exits import UsageError
from adafv_cli.files import descriptor, takes_data

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CLOSED = getattr(os, "O_CLOEXEC", 0)
"""The flag that keeps a descriptor from the programs that this process starts."""


def opened(path: Path) -> int:
    """Open a regular file, and lock it where that is possible (not on some network filesystems).

    Raises:
        UsageError: it cannot be opened, or another process has it.
    """
    while True:
        try:
            number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | CLOSED, 0o666)
        except OSError as error:
            raise _refused(path, error) from None
        try:
            lock(number, path)
            same = os.path.samestat(os.fstat(number), path.stat())
        except FileNotFoundError:
            same = False
        except BaseException:
            os.close(number)
            raise
        if same:
            return number
        os.close(number)  # another run replaced the file between our opening and locking it


def opened_stream(path: Path) -> int:
    """Open a device, a pipe or a descriptor of this process; raises `UsageError` where it cannot be written."""
    number = descriptor(path)
    try:
        if not takes_data(path):
            raise PermissionError(errno.EACCES, "cannot be written to")
        return os.open(path, os.O_WRONLY | os.O_APPEND | CLOSED) if number is None else os.dup(number)
    except OSError as error:
        raise _refused(path, error) from None


def lock(number: int, path: Path) -> None:
    """Lock a file for this process, where that is possible.

    Raises:
        UsageError: another process holds the lock.
    """
    if fcntl is None or not stat.S_ISREG(os.fstat(number).st_mode):
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"-o: {path} is being written by another process", "wait for it, or use another -o") from None
    except OSError:
        return


def _refused(path: Path, error: OSError) -> UsageError:
    return UsageError(f"-o: {cut(str(path))}: {error.strerror}", "check the path and its permissions")
