"""An output's files where its address leads: the whole, its parts, its settings; each is there whole, or not at all."""

from __future__ import annotations

import mmap
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from adafv.errors import cut
from adafv_cli.exits import UsageError
from adafv_cli.work.addresses import Address
from adafv_cli.work.recorded import check_settings

_AT_ONCE = ("s3", "gcs", "abfs")  # an object is there when it was written to its end
_PART = re.compile(r"\.part-([0-9]{4})-[0-9a-f]{8}-[0-9]{6}(\.writing)?")


class Objects:
    """The files of one output.

    Args:
        address: of the whole.

    Raises:
        UsageError: pyarrow is missing, or a name that cannot be written; or whatever pyarrow raises.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._filesystem, self.whole = address.at
        if self._filesystem.type_name.startswith("py::fsspec") and set("*?[") & set(self.whole):
            raise UsageError(f"-o: {cut(str(address))}: fsspec reads *, ? and [ as patterns", "give it another name")
        self.settings = f"{self.whole}.settings.json"
        self.unfinished = f"{self.whole}.writing"
        self.parts, number = self._listed()
        self._own = f"{self.whole}.part-{number:04}-{secrets.token_hex(4)}"
        self._written = 0

    def _listed(self) -> tuple[list[str], int]:
        """List the parts that earlier runs left, in their order, and number this run."""
        from pyarrow.fs import FileSelector

        folder, _, name = self.whole.rpartition("/")
        files = self._filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
        begun = [one for one in files if one.base_name.startswith(name)]
        found = {one.path: match for one in begun if (match := _PART.fullmatch(one.base_name.removeprefix(name)))}
        return sorted(found), 1 + max((int(match[1]) for match in found.values()), default=0)

    def is_there(self, path: str) -> bool:
        """Tell whether there is a file; raises `UsageError` for a folder."""
        from pyarrow.fs import FileType

        kind = self._filesystem.get_file_info(path).type
        if kind == FileType.Directory:
            raise UsageError(f"-o: {cut(str(self._address))} is a folder", "give the address of a file")
        return bool(kind == FileType.File)

    def try_out(self) -> None:
        """See that files can be written and removed: before the work, rather than after it."""
        self.put(self._own, b"")
        self.remove(self._own)

    def add_part(self, content: bytes) -> None:
        """Write a part."""
        path = f"{self._own}-{self._written:06}"
        self.put(path, content)
        self._written += 1
        self.parts.append(path)

    def put(self, path: str, content: bytes | BinaryIO) -> None:
        """Write a file, in the place of one that is there."""
        at = path if self._filesystem.type_name in _AT_ONCE else f"{path}.writing"
        with self._filesystem.open_output_stream(at, compression=None) as stream:
            if isinstance(content, bytes):
                stream.write(content)
            elif size := os.fstat(content.fileno()).st_size:  # at one go, so that Ctrl-C does not cut it short
                with mmap.mmap(content.fileno(), size, access=mmap.ACCESS_READ) as mapped:
                    stream.write(mapped)
        if at != path:
            self.remove(path)  # HDFS moves nothing over a file
            self._filesystem.move(at, path)

    def fetch(self, path: str, to: Path) -> None:
        """Copy a file to this machine."""
        with self._filesystem.open_input_stream(path, compression=None) as stream, to.open("wb") as copy:
            shutil.copyfileobj(stream, copy)

    def fetched_settings(self, to: Path) -> Path | None:
        """Copy the settings to this machine, if there are any; raises `UsageError` for another's file."""
        if not self.is_there(self.settings):
            return None
        self.fetch(self.settings, to)
        check_settings(to, f"{self._address}.settings.json")
        return to

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        if self.is_there(path):
            with suppress(FileNotFoundError):
                self._filesystem.delete_file(path)

    def clear(self, *, whole: bool = False) -> None:
        """Remove all parts, and the whole, too."""
        for path in [*([self.whole] if whole else []), self.unfinished, *self.parts]:
            self.remove(path)
        self.parts = []


def add_new(path: Path, to: BinaryIO, seen: set[int]) -> None:
    """Append the whole lines of a file that were not seen yet."""
    with path.open("rb") as lines:
        for raw in lines:
            key = hash(raw)
            if raw.endswith(b"\n") and key not in seen:
                seen.add(key)
                to.write(raw)
