"""Where the lines of a batch come from: a file or a table that can be read twice, or a pipe that cannot."""

from __future__ import annotations

import io
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from adafv.errors import InputError, shown
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import is_folder
from adafv_cli.work.addresses import Address, located
from adafv_cli.work.fields import line_of
from adafv_cli.work.jsonl import parse, raw_lines
from adafv_cli.work.lines import Line
from adafv_cli.work.tables import PARQUET, check_addressed, check_table, rows

LIMIT_BYTES = 256 * 2**20  # of images inside of lines
_POLL_S = 0.1  # how soon a thread that waits for input or for room notices that the run was stopped


@dataclass(frozen=True)
class Source:
    """A file of questions, a table of them, or standard input.

    Args:
        name: as the user gave it.
        folder: what relative image paths are relative to.
        file: a folder for a table in several; of lines that have an address, a copy; `None` for what can be read only
            once: standard input or a pipe.
        stream: what to read otherwise.
        copy: holds the file as long as it is used.
    """

    name: str
    folder: Path | Address
    file: Path | Address | None = None
    stream: BinaryIO | None = None
    copy: Any = None

    @classmethod
    def of(cls, name: str, image_folder: Path | Address | None, streams: Streams) -> Source:
        """Open an input.

        Raises:
            UsageError: it cannot be read, or nothing is piped.
        """
        if name == "-":
            if streams.stdin.isatty():
                raise UsageError(
                    "INPUT is missing: nothing is piped to standard input", "give a file of questions, or pipe one in"
                )
            return cls("standard input", image_folder or Path(), stream=streams.stdin.buffer)
        path = located(name)
        if isinstance(path, Address):
            return cls._addressed(path, image_folder)
        if is_folder(path) or path.suffix == ".parquet":
            check_table(name)
            return cls(name, image_folder or (path if is_folder(path) else path.parent), file=path)
        try:
            stream = path.open("rb")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"input {shown(name)}: {reason}", "check the path; - reads standard input") from None
        if not stat.S_ISREG(path.stat().st_mode):  # <(...) of a shell
            return cls(name, image_folder or Path(), stream=stream)
        stream.close()
        return cls(name, image_folder or path.parent, file=path)

    @classmethod
    def _addressed(cls, address: Address, image_folder: Path | Address | None) -> Source:
        """Open an address: tables are read where they lie, and lines from a copy, for that takes as long as the run."""
        if not address.is_web and address.is_folder():
            check_addressed(address)
            return cls(address.text, image_folder or address, file=address)
        if not address.is_web and address.suffix == ".parquet":
            return cls(address.text, image_folder or address.parent, file=address)
        copy = address.fetched()
        beside = Path() if address.is_web else address.parent
        return cls(address.text, image_folder or beside, file=Path(copy.name), copy=copy)

    def lines(self, stop: threading.Event | None = None) -> Iterator[Line]:
        """Read the lines that are not blank; no further ones once `stop` is set.

        Raises:
            InputError: reading fails half-way.
        """
        stop = stop or threading.Event()
        if self.file is not None and _is_table(self.file):
            for number, row in enumerate(rows(self.file), start=1):
                if stop.is_set():
                    return
                yield line_of(number, row, self.folder)
            return
        try:
            with self._opened(stop) as stream:
                for number, raw in raw_lines(stream):
                    if stop.is_set():  # the line may have been cut off by it
                        return
                    if number == 1 and raw is not None and raw.startswith(PARQUET):
                        what = f"{self.name} is in Parquet format, and has no name that ends in .parquet"
                        raise InputError(what, "give it one; a table cannot be piped")
                    yield parse(number, raw, self.folder)
        except OSError as error:
            raise InputError(
                f"{self.name} cannot be read: {error.strerror}", "check the disk or the network"
            ) from error

    def _opened(self, stop: threading.Event) -> BinaryIO:
        if isinstance(self.file, Path):
            return self.file.open("rb")
        stream = cast(BinaryIO, self.stream)
        try:
            return io.BufferedReader(_Stoppable(stream.fileno(), stop))
        except (OSError, ValueError):  # a test's stream
            return io.BytesIO(stream.read())


def _is_table(file: Path | Address) -> bool:
    return isinstance(file, Address) or is_folder(file) or file.suffix == ".parquet"


class InFlight:
    """Bounds what is held of images that come inside the lines themselves: a line may have 64 MB of them.

    Counts the bytes that were read and not answered yet; answers come in the order of the lines.

    Args:
        stop: ends all waiting.
        limit_bytes: held at most, but for a single line that has more.
    """

    def __init__(self, stop: threading.Event, limit_bytes: int = LIMIT_BYTES) -> None:
        self._stop, self._limit = stop, limit_bytes
        self._sizes: deque[int] = deque()
        self._total = 0
        self._changed = threading.Condition()

    def add(self, size: int) -> None:
        """Count a line, and wait until there is room for it."""
        with self._changed:
            while size and self._total and self._total + size > self._limit and not self._stop.is_set():
                self._changed.wait(_POLL_S)
            self._sizes.append(size)
            self._total += size

    def done(self) -> None:
        """Note that the oldest line was answered."""
        with self._changed:
            self._total -= self._sizes.popleft()
            self._changed.notify_all()


class _Stoppable(io.RawIOBase):
    """A pipe that ends when a run is stopped: a thread that waits for the next line would keep the process alive."""

    def __init__(self, number: int, stop: threading.Event) -> None:
        self._number, self._stop = number, stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._stop.is_set():
            if select.select([self._number], [], [], _POLL_S)[0]:
                return os.readv(self._number, [buffer])
        return 0
