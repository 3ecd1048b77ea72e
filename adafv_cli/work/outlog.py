"""The output of a batch as an append-only log: one write a line, one writer, and a run that was killed can go on.

Whatever happens to the process, the file holds whole lines and at most one torn one at its end. `FILE.settings.json`
beside it records what the answers were made with; the lines themselves repeat model, pruner and budget.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from adafv.errors import AdaFVError
from adafv.records import Answer
from adafv_cli.exits import UsageError
from adafv_cli.files import write_json
from adafv_cli.work.earlier import Found, Keys, copy_good, read
from adafv_cli.work.jsonl import encoded

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_IN_LINES = {"model": "model_id", "pruner": "pruner", "keep": "keep"}  # setting: field of an answer


class Log:
    """An output file that is locked from when it is opened until it is closed.

    Args:
        path: of the file; behind a symbolic link, its target.
        resume: go on with what is there.
        force: replace what is there.
        keys: by what answers are told apart.

    Raises:
        UsageError: it exists, it cannot be written, or another process writes it.
        InputError: it is to be resumed and is no log of ours.
    """

    def __init__(self, path: Path, *, resume: bool = False, force: bool = False, keys: Keys | None = None) -> None:
        self.path = path.resolve()
        self.found = Found()
        self.locked = True
        self._resume, self._keys = resume, keys or Keys()
        self._earlier: BinaryIO | None = None
        self._created = not self.path.exists()
        self._fd = self._open()
        try:
            self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            if self._regular and os.fstat(self._fd).st_size and not (resume or force):
                raise UsageError(f"-o: {path} exists", "--resume goes on with it, --force replaces it")
            if resume and self._regular:
                self.found = read(self.path, self._keys)
                if self.found.places:
                    self._earlier = self.path.open("rb")  # stays what it is when the file is replaced
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def settings_path(self) -> Path:
        """Where the settings of the run are recorded."""
        return self.path.with_name(self.path.name + ".settings.json")

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare the settings of this run with those that the answers were made with.

        Raises:
            UsageError: they differ.
        """
        if self.found.first is None:
            return
        first = self.found.first
        recorded = {name: first.get(key) for name, key in _IN_LINES.items()} | self._recorded()
        changed = [
            f"{name}: {recorded[name]} in the file, {value} asked"
            for name, value in settings.items()
            if name in recorded and recorded[name] != value
        ]
        if changed:
            what = f"-o: {self.path.name} was made with other settings ({'; '.join(changed)})"
            raise UsageError(what, "use the same, or write to another file; --force replaces this one")

    def _recorded(self) -> dict[str, Any]:
        try:
            found = json.loads(self.settings_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # gone, or not ours: the lines have the most important
            return {}
        return found if isinstance(found, dict) else {}

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the file ready for appending, and record the settings; from now on it is changed."""
        if not self._regular:
            return
        try:
            if not self._resume:
                os.ftruncate(self._fd, 0)
            elif self.found.failed or self.found.repeated:
                self._compact()
            elif self.found.torn_bytes:
                os.ftruncate(self._fd, self.found.good_bytes)
            if self._recorded() != dict(settings):
                write_json(self.settings_path, settings)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, answer: Answer) -> None:
        """Append one line.

        Raises:
            AdaFVError: it cannot be written; the message names the last line that was.
        """
        line = (encoded(answer) + "\n").encode()
        try:
            written = os.write(self._fd, line)
            while written < len(line):  # a disk that is nearly full takes a part, and says why not more next time
                written += os.write(self._fd, line[written:])
        except OSError as error:
            raise self._unwritable(error) from error
        self.found.last = json.dumps(answer.question_id)

    def earlier(self, key: int) -> dict[str, Any]:
        """A sweep's answer that was there before this run, by its key."""
        if self._earlier is None:
            raise KeyError(key)
        self._earlier.seek(self.found.places[key])
        answer: dict[str, Any] = json.loads(self._earlier.readline())
        return answer

    def _unwritable(self, error: OSError) -> AdaFVError:
        last = f"; its last good line is that of question_id {self.found.last}" if self.found.last else ""
        what = f"cannot write to {self.path}: {error.strerror}{last}"
        return AdaFVError(what, "make room, then go on with --resume" if error.errno == errno.ENOSPC else "")

    def close(self) -> None:
        """Bring everything to the disk and let go of the lock; a file that was made for nothing goes again."""
        if self._created and self._regular and not os.fstat(self._fd).st_size:
            self.path.unlink(missing_ok=True)
            self.settings_path.unlink(missing_ok=True)
        if self._earlier is not None:
            self._earlier.close()
        with suppress(OSError):  # pipes cannot be synchronised
            os.fsync(self._fd)
        os.close(self._fd)

    def _open(self) -> int:
        flags = os.O_RDWR if not self.path.exists() or self.path.is_file() else os.O_WRONLY
        while True:
            try:
                opened = os.open(self.path, flags | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            except OSError as error:
                raise UsageError(f"-o: {self.path}: {error.strerror}", "check the path and its permissions") from None
            try:
                self.locked = _lock(opened, self.path)
                same = os.path.samestat(os.fstat(opened), self.path.stat())
            except FileNotFoundError:
                same = False
            except BaseException:
                os.close(opened)
                raise
            if same:
                return opened
            os.close(opened)  # another run replaced the file between our opening and locking it

    def _compact(self) -> None:
        """Drop failed lines, repeated ones and a torn one: in a copy, which then takes the place of the file."""
        copy = self.path.with_name(f".{self.path.name}.compacting")
        opened = os.open(copy, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            os.fchmod(opened, stat.S_IMODE(os.fstat(self._fd).st_mode))
            _lock(opened, self.path)
            with self.path.open("rb") as old, os.fdopen(os.dup(opened), "wb") as new:
                copy_good(old, new, self._keys)
            os.fsync(opened)
            copy.replace(self.path)
        except BaseException:
            os.close(opened)
            copy.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = opened


def _lock(number: int, path: Path) -> bool:
    """Lock a file for this process; `False` where that is not possible (some network filesystems).

    Raises:
        UsageError: another process holds the lock.
    """
    if fcntl is None or not stat.S_ISREG(os.fstat(number).st_mode):
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"-o: {path} is being written by another process", "wait for it, or use another -o") from None
    except OSError:
        return False
    return True
