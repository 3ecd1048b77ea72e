"""Files by address: what INPUT, `--image-folder` and `-o` take besides paths of this machine.

pyarrow opens them, as Ray's data sets do: `s3://`, `gs://`, `abfs://`, `hdfs://`, and whatever fsspec knows as
`fsspec+NAME://`. Python itself reads `http://` and `https://`; `file://` is a path. A path that looks like an address
is written with `./` before it.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import urlopen

from adafv.errors import AdaFVError, cut
from adafv.spreading.places import scheme_of
from adafv_cli.exits import UsageError
from adafv_cli.work.lines import key_of

_WEB = ("http", "https")
_ANSWER_S = 60.0  # that a web server may say nothing
_CHECK = "check the address and the access to it"


@dataclass(frozen=True)
class Address:
    """A file or a folder that is not of this machine, named as pyarrow does: spaces are %20, but behind `fsspec+`."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_web(self) -> bool:
        """Whether a web server has it, which is asked for whole files."""
        return scheme_of(self.text) in _WEB

    @property
    def name(self) -> str:
        """The last part."""
        name = posixpath.basename(self._split()[0])
        return name if self._is_plain else unquote(name)

    @property
    def suffix(self) -> str:
        """How the name ends."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> Address:
        """The folder that it is in."""
        place, options = self._split()
        return Address(posixpath.dirname(place) + options)

    def __truediv__(self, name: str) -> Address | Path:
        """Find what a relative path leads to from this folder; one that is not relative stays as it is."""
        place, options = self._split()
        steps = posixpath.normpath(name).split("/")
        if not steps[0]:
            return Path(name)
        up = sum(step == ".." for step in steps)
        for _ in range(up):
            place = posixpath.dirname(place)
        names = steps[up:] if self._is_plain else map(quote, steps[up:])
        return Address("/".join([place, *names]) + options)

    @property
    def _is_plain(self) -> bool:
        """Whether it is read as it is written: fsspec knows no %20, and no options."""
        return self.text.startswith("fsspec+")

    def _split(self) -> tuple[str, str]:
        """Tell the place from the options behind it (`?region=eu-west-1`)."""
        place, mark, options = (self.text, "", "") if self._is_plain else self.text.partition("?")
        return place.rstrip("/"), mark + options

    @cached_property
    def at(self) -> tuple[Any, str]:
        """The filesystem, and the path in it; raises whatever pyarrow does, and `UsageError` where that is missing."""
        if find_spec("pyarrow") is None:
            raise UsageError(f"{cut(self.text)}: an address needs pyarrow", "pip install 'adafv[ray]'")
        from pyarrow import fs

        filesystem, path = fs.FileSystem.from_uri(self.text)
        return filesystem, path

    def is_folder(self) -> bool:
        """Tell whether there is a folder; raises `UsageError` where there is nothing."""
        with explained(f"input {self}"):
            filesystem, path = self.at  # first: it says so where pyarrow is missing
            from pyarrow.fs import FileType

            kind = filesystem.get_file_info(path).type
        if kind == FileType.NotFound:
            raise UsageError(f"input {cut(self.text)} does not exist", _CHECK)
        return bool(kind == FileType.Directory)

    def tables(self) -> list[str]:
        """Find the paths of the Parquet files of a folder, or of this one."""
        filesystem, path = self.at
        from pyarrow.fs import FileSelector

        if not self.is_folder():
            return [path]
        with explained(f"input {self}"):
            paths = [one.path for one in filesystem.get_file_info(FileSelector(path)) if one.is_file]
        return sorted(one for one in paths if one.endswith(".parquet"))

    def fetched(self) -> Any:
        """Copy it to a file of this machine that is there as long as it is open; raises `UsageError`."""
        copy = NamedTemporaryFile(prefix="adafv-", suffix=self.suffix)  # noqa: SIM115 - its user closes it
        with explained(f"input {self}"):
            if self.is_web:
                _download(self.text, copy)
            else:
                filesystem, path = self.at
                with filesystem.open_input_stream(path, compression=None) as stream:
                    shutil.copyfileobj(stream, copy)
            copy.flush()
        return copy


def located(text: str) -> Path | Address:
    """Tell a path from an address."""
    scheme = scheme_of(text)
    if scheme is None:
        return Path(text)
    parts = urlsplit(text)
    if scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(text.partition("://")[2].removeprefix("localhost")))
    return Address(text)


def work_path(address: Address) -> Path:
    """Name the log that stands for an address on this machine."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "adafv" / "outputs" / f"{key_of(address.text):016x}"
    return folder / "log" / (address.name or "answers.jsonl")


def make(folder: Path) -> None:
    """Make the folder of a log that stands for an address; raises `UsageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"-o: answers are kept in {cut(str(folder))} until all are there: {error.strerror}"
        raise UsageError(what, "set XDG_CACHE_HOME to another folder") from error


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn what pyarrow and its filesystems raise, which may be anything, into a `UsageError` about something."""
    try:
        yield
    except AdaFVError:
        raise
    except Exception as error:
        raise UsageError(f"{cut(subject)}: {reason(error)}", _CHECK) from error


def reason(error: Exception) -> str:
    """Say in one line what went wrong."""
    said = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return cut(said[0] if said else type(error).__name__)


def _download(url: str, into: Any) -> None:
    with urlopen(url, timeout=_ANSWER_S) as response:
        expected = response.length
        shutil.copyfileobj(response, into)
    if expected is not None and into.tell() != expected:
        raise HTTPException(f"the connection ended after {into.tell()} of {expected} bytes")
