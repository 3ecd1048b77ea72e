"""Tables of questions: Parquet files, and folders that Hugging Face's `datasets` saved; a few rows at a time."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adafv.errors import InputError, shown
from adafv.rows import IDS, TAKEN, TEXTS
from adafv_cli.exits import UsageError
from adafv_cli.files import is_folder
from adafv_cli.work.addresses import Address
from adafv_cli.work.fields import Embedded

PARQUET = b"PAR1"  # what such a file begins with
_ROWS = 16  # read at a time, with their images
_SAVED, _SPLITS = "state.json", "dataset_dict.json"  # what `save_to_disk` leaves in a folder
_KNOWN = {*IDS, *TEXTS, *TAKEN}


def check_table(name: str) -> None:
    """See that a file or a folder is a table that can be read here.

    Raises:
        UsageError: it is not there, or none; several splits; or a package is missing.
    """
    path = Path(name)
    if is_folder(path) and (path / _SPLITS).is_file():
        splits = sorted(entry.name for entry in path.iterdir() if (entry / _SAVED).is_file())
        raise UsageError(f"input {shown(name)} has the splits {', '.join(splits)}", f"give one: {path / splits[0]}")
    if is_folder(path) and not _is_saved(path) and not _files(path):
        what = f"input {shown(name)} is a directory without Parquet files, and none that `datasets` saved"
        below = sorted({found.parent.name for found in path.glob("*/*.parquet")})
        fix = "give a JSONL file, a Parquet file, or a folder that save_to_disk wrote"
        raise UsageError(what, f"give one that has some: {path / below[0]}" if below else fix)
    if not is_folder(path):
        try:
            path.open("rb").close()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"input {shown(name)}: {getattr(error, 'strerror', None) or error}", "check the path"
            ) from None
    needed = "datasets" if _is_saved(path) else "pyarrow"
    if find_spec(needed) is None:
        raise UsageError(f"input {shown(name)}: reading it needs {needed}", "pip install 'adafv[datasets]'")


def check_addressed(folder: Address) -> None:
    """See that a folder with an address has tables; raises `UsageError`."""
    if not folder.tables():
        what = f"input {shown(str(folder))} is a folder without Parquet files"
        raise UsageError(what, "what save_to_disk wrote is read from this machine: copy it, and give its path")


def rows(place: Path | Address) -> Iterator[Callable[[], dict[str, Any]]]:
    """Read the rows of a table, each as what gives its keys.

    Raises:
        InputError: a file that is damaged, or no table.
    """
    try:
        saved = isinstance(place, Path) and _is_saved(place)
        for batch in _saved(place) if saved else _parquet(_tables(place)):
            for row in batch.to_pylist():
                yield partial(_keys, row)
    except Exception as error:  # damaged files make the libraries raise nearly anything
        said = " ".join(str(error).strip().splitlines()[:1]) or type(error).__name__
        raise InputError(f"{place} cannot be read: {said}", "write it again; it may be cut off") from error


def _is_saved(path: Path) -> bool:
    return is_folder(path) and (path / _SAVED).is_file()


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet")) if is_folder(path) else [path]


def _tables(place: Path | Address) -> Iterator[Any]:
    """Give what pyarrow reads a table's files from, one after the other."""
    if isinstance(place, Path):
        yield from _files(place)
        return
    for path in place.tables():
        with place.at[0].open_input_file(path) as file:
            yield file


def _parquet(files: Iterator[Any]) -> Iterator[Any]:
    from pyarrow import parquet

    for path in files:
        # Page by page: groups of rows with images in them may be larger than memory.
        with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            yield from file.iter_batches(_ROWS, columns=_read(file.schema_arrow), use_threads=False)


def _saved(folder: Any) -> Iterator[Any]:
    from datasets import load_from_disk

    data: Any = load_from_disk(str(folder)).with_format("arrow")
    yield from data.select_columns(_read(data.features.arrow_schema)).iter(_ROWS)


def _read(schema: Any) -> list[str]:
    """List the columns to be read: bytes are the image's alone, and of no use among the metadata."""
    return [field.name for field in schema if field.name == "image" or not _holds_bytes(field.type)]


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(index).type) for index in range(kind.num_fields))


def _keys(row: dict[str, Any]) -> dict[str, Any]:
    """Give a row as a line would have it: without what is null of the keys that mean something."""
    found = {key: _plain(value) for key, value in row.items() if key != "image"}
    found["image"] = _image(row.get("image"))
    keep = found.get("keep")
    if isinstance(keep, float) and keep.is_integer():  # what a column of whole numbers with gaps becomes
        found["keep"] = int(keep)
    return {key: value for key, value in found.items() if value is not None or key not in _KNOWN}


def _image(value: Any) -> Any:
    """Tell an image's bytes, alone or as `datasets` has them with their path, from a path."""
    if isinstance(value, dict) and {"bytes", "path"} & set(value):
        content, name = value.get("bytes"), value.get("path")
        return name if content is None else Embedded(content, name)
    return Embedded(value) if isinstance(value, bytes) else _plain(value)


def _plain(value: Any) -> Any:
    """Make JSON of a value; what JSON does not know becomes text, and what is no number becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
