"""The output of a batch as an append-only log: one write a line, one writer, and a run that was killed can go on.

Whatever happens to the process, the file holds whole lines and at most one torn one at its end. `FILE.settings.json`
beside it records what the answers were made with; the lines themselves repeat model, pruner and budget.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from adafv.errors import AdaFVError, cut
from adafv.records import Answer
from adafv_cli.console import ReaderGone
from adafv_cli.exits import UsageError
from adafv_cli.files import status, written_into
from adafv_cli.work.earlier import Found, Keys, copy_good, read
from adafv_cli.work.lines import encoded
from adafv_cli.work.locking import CLOSED, lock, opened, opened_stream
from adafv_cli.work.recorded import (
    changes,
    check_dtype,
    check_settings,
    compacting_path,
    record,
    settings_path,
    suspects_in,
)


class Log:
    """An output file that is locked from when it is opened until it is closed.

    Args:
        path: of the file; behind a symbolic link, its target. A device, a pipe or a descriptor is written into.
        resume: go on with what is there.
        force: replace what is there.
        keys: by what answers are told apart.

    Raises:
        UsageError: it exists, it cannot be written, another process writes it, or its settings would replace a file
            that is not ours.
        InputError: it is to be resumed and is no log of ours.
    """

    def __init__(self, path: Path, *, resume: bool = False, force: bool = False, keys: Keys | None = None) -> None:
        status("-o", path)
        self.path = path if written_into(path) else path.resolve()
        self.found = Found()
        self._resume, self._keys = resume, keys or Keys()
        self._earlier: BinaryIO | None = None
        self._began = False
        self.regular = not written_into(path)
        if self.regular:
            check_settings(settings_path(self.path))
        self.suspects = suspects_in(settings_path(self.path)) if self.regular and resume else {}
        self._created = self.regular and not self.path.exists()
        self._fd = opened(self.path) if self.regular else opened_stream(self.path)
        try:
            if self.regular and os.fstat(self._fd).st_size and not (resume or force):
                raise UsageError(f"-o: {cut(str(path))} exists", "--resume goes on with it, --force replaces it")
            if resume:
                self.found = read(self.path, self._keys)
                if self.found.places:
                    self._earlier = self.path.open("rb")  # stays what it is when the file is replaced
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def settings_path(self) -> Path:
        """Where the settings of the run are recorded."""
        return settings_path(self.path)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Compare the settings of this run with those that the answers were made with.

        Raises:
            UsageError: they differ.
        """
        if self.found.first is None:
            return
        changed = changes(self.settings_path, self.found.first, settings)
        if changed:
            what = f"-o: {self.path.name} was made with other settings ({'; '.join(changed)})"
            raise UsageError(what, "use the same, or write to another file; --force replaces this one")

    def check_dtype(self, dtype: str) -> None:
        """Compare the type of the weights, now that they are loaded; raises as `check`."""
        if self.found.first is not None:
            check_dtype([self.path], dtype)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the file ready for appending, and record the settings; from now on it is changed."""
        if not self.regular:
            return
        try:
            if not self._resume:
                os.ftruncate(self._fd, 0)
            elif self.found.failed or self.found.repeated:
                self.rewrite(self._copy_good)
            elif self.found.torn_bytes:
                os.ftruncate(self._fd, self.found.good_bytes)
            self._began = record(self.settings_path, settings) or self._began
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, answer: Answer) -> None:
        """Append one line.

        Raises:
            AdaFVError: it cannot be written; the message names the last line that was. Or the file was removed.
            ReaderGone: nobody reads the pipe any more.
        """
        line = (encoded(answer) + "\n").encode()
        if self.regular and not os.fstat(self._fd).st_nlink:
            self.check_there()
        try:
            written = os.write(self._fd, line)
            while written < len(line):  # a disk that is nearly full takes a part, and says why not more next time
                written += os.write(self._fd, line[written:])
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise self._unwritable(error) from error
        self.found.last = json.dumps(answer.question_id)

    def check_there(self) -> None:
        """See that the path still leads to the file that is written.

        Raises:
            AdaFVError: it was removed or replaced.
        """
        if not self._is_there():
            what = f"-o: {cut(str(self.path))} was removed or replaced during the run"
            raise AdaFVError(what, "its answers are lost; start again, and leave the file where it is")

    def earlier(self, key: int) -> dict[str, Any]:
        """Read a sweep's answer that was there before this run, by its key."""
        if self._earlier is None:
            raise KeyError(key)
        self._earlier.seek(self.found.places[key])
        answer: dict[str, Any] = json.loads(self._earlier.readline())
        return answer

    def _unwritable(self, error: OSError) -> AdaFVError:
        last = f"; its last good line is that of question_id {self.found.last}" if self.found.last else ""
        what = f"cannot write to {self.path}: {error.strerror}{last}"
        return AdaFVError(what, "make room, then go on with --resume" if error.errno == errno.ENOSPC else "")

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file.

        Raises:
            AdaFVError: all went well but for the file, which is no longer there.
        """
        try:
            if error is None:
                self.check_there()
        finally:
            self.close()

    def close(self) -> None:
        """Bring everything to the disk and let go of the lock; a file that was made for nothing goes again.

        One that a server died for at once stays: its settings name the line.
        """
        empty = self._created and self._is_there() and not os.fstat(self._fd).st_size
        if empty and not suspects_in(self.settings_path):
            self.path.unlink()
            if self._began:
                self.settings_path.unlink(missing_ok=True)
        if self._earlier is not None:
            self._earlier.close()
        with suppress(OSError):  # pipes cannot be synchronised
            os.fsync(self._fd)
        os.close(self._fd)

    def _is_there(self) -> bool:
        """Tell whether the path still leads to the file that is written."""
        try:
            return not self.regular or os.path.samestat(os.fstat(self._fd), self.path.stat())
        except OSError:
            return False

    def _copy_good(self, new: BinaryIO) -> None:
        with self.path.open("rb") as old:
            copy_good(old, new, self._keys)

    def rewrite(self, write: Callable[[BinaryIO], None]) -> None:
        """Have a copy written, which then takes the place of the file."""
        copy = compacting_path(self.path)
        copy.unlink(missing_ok=True)  # of a run that was killed
        number = os.open(copy, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | CLOSED, 0o666)
        try:
            os.fchmod(number, stat.S_IMODE(os.fstat(self._fd).st_mode))
            lock(number, self.path)
            with os.fdopen(os.dup(number), "wb") as new:
                write(new)
            os.fsync(number)
            copy.replace(self.path)
        except BaseException:
            os.close(number)
            copy.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = number
