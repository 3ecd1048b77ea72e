"""Files that a command writes: where they may lie, and what they may replace. `writing` writes them.

Only a regular file is ever replaced, by renaming a complete one over it. Devices, pipes and this process's own
descriptors (`/dev/stdout`, a shell's `>(...)`) are written into, and of a symbolic link the target is written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from adafv.errors import cut
from adafv.figures.formats import FORMATS, is_ours
from adafv_cli.exits import UsageError

_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(self|[0-9]+)/fd")
_SUBMISSION = re.compile(rb'PK\x03\x04|\s*\[\s*(\]|\{\s*"(question_id|image)"\s*:\s*[^,]*,\s*"answer"\s*:)')
_REPORT = re.compile(
    rb'\s*\{\s*"adafv"\s*:\s*"[^"]*"\s*,\s*"command"\s*:\s*\[|(<!doctype html>\s*)?(<!--|%) adafv sweep report\b'
)
_LINKS = 40  # as many as Linux follows


def status(flag: str, path: Path) -> os.stat_result | None:
    """Look at what a path leads to; `None` where there is nothing yet.

    Raises:
        UsageError: there can be nothing (a name too long, a loop of links, no permission).
    """
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{flag}: {cut(str(path))}: {reason}", "check the path and its permissions") from None


def is_file(path: Path) -> bool:
    """Tell whether there is a regular file, also for a text that can be no path."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder, also for a text that can be no path."""
    return stat.S_ISDIR(_mode(path))


def is_there(path: Path) -> bool:
    """Tell whether there is anything, also for a text that can be no path."""
    return _mode(path) != 0


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def descriptor(path: Path) -> int | None:
    """Find the number of the open file of this process that a path such as `/dev/stdout` stands for."""
    for _ in range(_LINKS):
        folder = str(path.parent.resolve())
        if _DESCRIPTORS.fullmatch(folder) and path.name.isdecimal():
            own = folder in ("/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd")
            return int(path.name) if own else None
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def written_into(path: Path) -> bool:
    """Tell whether a path is a device, a pipe or a descriptor: something that exists and cannot be replaced."""
    try:
        return descriptor(path) is not None or (is_there(path) and not is_file(path))
    except (OSError, ValueError, RuntimeError):  # no path, or a loop of links
        return False


def takes_data(path: Path) -> bool:
    """Tell whether a device, a pipe or a descriptor can be written."""
    number = descriptor(path)
    if number is None:
        return os.access(path, os.W_OK) and not path.is_socket()
    try:
        return os.write(number, b"") == 0
    except OSError:  # not open, or open for reading only
        return False


def check_place(flag: str, path: Path, ours: Callable[[bytes], bool], *, force: bool) -> None:
    """See that a file can be written, before the work whose result it will hold.

    Args:
        flag: that names the file, for messages.
        path: of the file.
        ours: whether such a content was written by this tool, and may be replaced.
        force: replace any file.

    Raises:
        UsageError: a folder, a place that cannot be written, or a file of somebody else.
    """
    found = status(flag, path)
    if written_into(path) and not path.is_dir():
        if not takes_data(path):
            raise UsageError(f"{flag}: {cut(str(path))} cannot be written to", "give the path of a file, or a pipe")
        return
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir():
        what = "is a folder" if path.is_dir() else "its folder does not exist"
        raise UsageError(f"{flag}: {cut(str(path))}: {what}", "give the path of a file")
    try:
        with TemporaryFile(dir=folder):
            pass
        foreign = found is not None and found.st_size > 0 and not force and not ours(path.read_bytes())
    except OSError as error:
        what = f"{flag}: {folder} cannot be written to: {error.strerror}"
        raise UsageError(what, "choose another folder, or check its permissions") from None
    if foreign:
        what = f"{flag}: {cut(str(path))} exists, and adafv did not write it"
        raise UsageError(what, "give another name, or remove it; --force replaces it")


def check_folder(flag: str, path: Path) -> None:
    """See that files can be written into a folder, which need not be there yet; leaves nothing behind.

    Raises:
        UsageError: something else is there, or nothing can be written.
    """
    status(flag, path)
    try:
        there = next(part for part in (path, *path.absolute().parents) if part.exists())
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = "is no folder" if isinstance(error, NotADirectoryError) else f"cannot be written to: {error.strerror}"
        raise UsageError(f"{flag}: {cut(str(path))} {reason}", "give the path of a folder") from None


def check_report(path: Path, *, force: bool, flag: str = "--report") -> None:
    """See that a report in JSON can be written; raises as `check_place`."""
    check_place(flag, path, lambda content: _REPORT.match(content) is not None, force=force)


def check_submission(path: Path, *, force: bool) -> None:
    """See that `--submission` can be written; an earlier one may be replaced; raises as `check_place`."""
    check_place("--submission", path, lambda content: _SUBMISSION.match(content) is not None, force=force)


def check_figure(flag: str, path: Path, *, force: bool) -> None:
    """See that a figure can be written.

    Raises:
        UsageError: a format that is not drawn, or as `check_place`.
    """
    if figure_format(path) not in FORMATS:
        names = ", ".join(f".{name}" for name in FORMATS)
        what = f"{flag}: {cut(str(path))}: a figure is no {path.suffix or 'file without an extension'}"
        raise UsageError(what, f"give a name that ends in {names}")
    check_place(flag, path, is_ours, force=force)


def figure_format(path: Path) -> str:
    """Name the format of a figure by the end of its file's name; a pipe without one gets a PNG."""
    if not path.suffix and written_into(path):
        return "png"
    return path.suffix.lower().removeprefix(".")


def check_apart(
    stdin: TextIO, stdout: TextIO, read: Iterable[Path | None], written: Iterable[tuple[Path, str]]
) -> None:
    """See that a command writes nothing that it reads, and no file twice; links, hard ones too, are seen through.

    Args:
        stdin: never written, whatever file it is redirected from.
        stdout: written already; only a path that stands for it (`/dev/stdout`) may name its file again.
        read: the inputs, `None` for standard input.
        written: paths, and the flag that each comes from.

    Raises:
        UsageError: a file would be used twice.
    """
    used = {_identity(stdin): "the input"} | {_identity(path): "the input" for path in read}
    into = _identity(stdout)
    if into is not None and into in used:
        raise UsageError("standard output is appended to the input", "send it to a file of its own")
    for path, flag in written:
        identity = _identity(path)
        if identity is None or (identity == into and descriptor(path) is not None):
            continue
        use = used.get(identity, "what standard output goes to" if identity == into else None)
        if use is not None:
            raise UsageError(f"{flag}: {cut(str(path))} is {use}", "give it a file of its own")
        used[identity] = "used otherwise in this run"


def _identity(file: Path | TextIO | None) -> object:
    """Identify a file, equally by all its names; `None` where using it twice does no harm (devices, pipes)."""
    if file is None:
        return None
    try:
        found = file.stat() if isinstance(file, Path) else os.fstat(file.fileno())
    except FileNotFoundError:
        return str(file.resolve()) if isinstance(file, Path) else None
    except (OSError, ValueError):  # a test's stream, or a closed one; a path that can be none is refused elsewhere
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
