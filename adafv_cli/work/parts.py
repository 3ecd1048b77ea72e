"""Parts of an output: each process of a launch appends to one of its own, and the first merges them in the end."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from adafv.errors import AdaFVError
from adafv_cli.exits import Exit, UsageError
from adafv_cli.work.earlier import Found, Keys, read
from adafv_cli.work.lines import id_key
from adafv_cli.work.outlog import Log
from adafv_cli.work.recorded import SUSPECTS, changes, compacting_path, record, settings_in, settings_path, suspects_in
from adafv_cli.work.world import World

_PART = re.compile(r"(\.part-[0-9]+-of-[0-9]+)(\.done|\.writing|\.launch|\.settings\.json)?")
LAUNCH = "launch"  # in the settings of a part: by which launch it is written
_POLL_S = 0.05


class Parts:
    """The parts beside an output.

    Args:
        out: where the answers go in the end.
        world: the launch.
    """

    def __init__(self, out: Path, world: World) -> None:
        self._out, self._world = out.resolve(), world

    @property
    def own(self) -> Path:
        """The part that this process appends to."""
        return self._of(self._world.rank)

    def there(self, *, ours: bool = False) -> list[Path]:
        """List the parts that there are, of this launch alone (`ours`), or also of an earlier one."""
        return [part for part in self.traces() if part.exists() and (not ours or self._is_of_this_launch(part))]

    def traces(self) -> list[Path]:
        """List the parts that there are or that something is left of, as where a share was empty."""
        beside = self._out.parent.iterdir() if self._out.parent.is_dir() else []
        begin = self._out.name
        names = [one.name.removeprefix(begin) for one in beside if one.name.startswith(begin)]
        found = {match[1] for name in names if (match := _PART.fullmatch(name))}
        return [self._out.with_name(begin + part) for part in sorted(found)]

    def check(self, *, resume: bool, force: bool) -> None:
        """See that what an interrupted launch left is to be gone on with or replaced.

        Raises:
            UsageError: it is neither to be resumed nor replaced.
        """
        if resume:
            return
        left = [one for one in self.there() if _size(one) and not self._is_of_this_launch(one)]
        if left and not force:
            what = f"-o: {self._out.name} has parts of a run that did not end ({left[0].name})"
            raise UsageError(what, "--resume goes on with them, --force replaces them")

    def clear(self) -> None:
        """Remove what earlier launches left; only whoever holds the lock of the output may."""
        ours = [self._of(rank) for rank in range(self._world.size)] if self._world.size > 1 else []
        for path in self.traces():
            if path not in ours:
                _remove(path)

    def suspects(self) -> dict[str, int]:
        """Unite what all parts and the output remember of lines that a server has died at."""
        together: dict[str, int] = {}
        for path in [self._out, *self.traces()]:
            for key, strikes in suspects_in(settings_path(path)).items():
                together[key] = max(strikes, together.get(key, 0))
        return together

    def found(self, keys: Keys, settings: Mapping[str, Any]) -> Found:
        """Read what all parts and the output hold, as one.

        Raises:
            UsageError: they were made with other settings.
            InputError: one is no output.
        """
        together = Found()
        for path in [self._out, *self.there()]:
            if not path.exists():
                continue
            found = read(path, keys)
            changed = changes(settings_path(path), found.first, settings) if found.first is not None else []
            if changed:
                what = f"-o: {path.name} was made with other settings ({'; '.join(changed)})"
                raise UsageError(what, "use the same, or write to another file; --force replaces this one")
            together.done |= found.done
            together.failed += found.failed
            together.first = together.first or found.first
            together.last = found.last or together.last
        return together

    def claim(self) -> None:
        """Tell the other processes, as the first, that this launch has the lock of the output."""
        self._claimed.write_text(self._world.launch, encoding="utf-8")

    def disclaim(self) -> None:
        """Take that back, where it was told."""
        if self._is_claimed():
            self._claimed.unlink(missing_ok=True)

    def follow(self) -> None:
        """Wait until the first process has the lock: a part that lies there may be that of a launch which runs.

        Raises:
            AdaFVError: the launcher is gone.
        """
        self._until(self._is_claimed, "the first process has not begun")

    def finish(self, code: Exit) -> None:
        """Say that this process has done its share, and how it went."""
        said = json.dumps({"launch": self._world.launch, "code": int(code)})
        unfinished = self._marker(self._world.rank).with_suffix(".writing")
        unfinished.write_text(said, encoding="utf-8")
        unfinished.replace(self._marker(self._world.rank))

    def wait(self) -> Exit:
        """Wait for all other processes of the launch, and tell how they ended.

        Raises:
            AdaFVError: the launcher is gone.
        """
        codes = [Exit.OK]
        for rank in range(1, self._world.size):
            self._until(partial(self._has_said, rank), f"the process of rank {rank} has not finished")
            codes.append(self._said(rank) or Exit.OK)
        return max(codes)

    def merge(self, log: Log, keys: Keys, order: Iterable[int]) -> int:
        """Bring all answers into the output, each id once, and remove the parts; killed at any point, it can be redone.

        Args:
            log: of the output.
            keys: by what answers are told apart.
            order: the keys of the input's lines; answers to other questions come behind them.

        Returns:
            How many answers there are.
        """
        paths = [path for path in (self._out, *self.there()) if path.exists()]
        suspects = self.suspects()
        places = _places(paths, keys)

        def write(new: BinaryIO) -> None:
            files = [path.open("rb") for path in paths]
            try:
                for key in dict.fromkeys([*(key for key in order if key in places), *places]):
                    number, at, _ = places[key]
                    files[number].seek(at)
                    new.write(files[number].readline())
            finally:
                for file in files:
                    file.close()

        log.rewrite(write)
        if suspects:
            answered = _answered(log.path)
            left = {key: strikes for key, strikes in suspects.items() if key not in answered}
            settings = {name: value for name, value in settings_in(log.settings_path).items() if name != SUSPECTS}
            record(log.settings_path, settings | ({SUSPECTS: left} if left else {}))
        for path in self.traces():
            _remove(path)
        return len(places)

    def _until(self, happened: Callable[[], bool], otherwise: str) -> None:
        parent = os.getppid()
        while not happened():
            if os.getppid() != parent:
                raise AdaFVError(f"the launcher is gone, and {otherwise}", "start it again, with --resume")
            time.sleep(_POLL_S)

    @property
    def _claimed(self) -> Path:
        return self._of(0).with_name(f"{self._of(0).name}.launch")

    def _is_claimed(self) -> bool:
        try:
            return self._claimed.read_text(encoding="utf-8") == self._world.launch
        except (OSError, ValueError):
            return False

    def _of(self, rank: int) -> Path:
        return self._out.with_name(f"{self._out.name}.part-{rank}-of-{self._world.size}")

    def _is_of_this_launch(self, part: Path) -> bool:
        return self._world.size > 1 and settings_in(settings_path(part)).get(LAUNCH) == self._world.launch

    def _marker(self, rank: int) -> Path:
        return self._of(rank).with_name(f"{self._of(rank).name}.done")

    def _has_said(self, rank: int) -> bool:
        return self._said(rank) is not None

    def _said(self, rank: int) -> Exit | None:
        try:
            said = json.loads(self._marker(rank).read_text(encoding="utf-8"))
            return Exit(said["code"]) if said["launch"] == self._world.launch else None
        except (OSError, ValueError):
            return None


def _places(paths: list[Path], keys: Keys) -> dict[int, tuple[int, int, bool]]:
    """Find the answer to each key: its file, where it begins there, and whether it is good; a good one counts most."""
    places: dict[int, tuple[int, int, bool]] = {}
    for number, path in enumerate(paths):
        at = 0
        with path.open("rb") as lines:
            for raw in lines:
                if raw.endswith(b"\n") and raw.strip():
                    answer = json.loads(raw)
                    key, good = keys.of(answer), answer.get("error") is None
                    if key not in places or not places[key][2]:
                        places[key] = (number, at, good)
                at += len(raw)
    return places


def _answered(path: Path) -> set[str]:
    """Name the lines with a good answer as suspects are named."""
    with path.open("rb") as lines:
        answers = (json.loads(raw) for raw in lines if raw.strip())
        return {str(id_key(one["question_id"], one["prompt"])) for one in answers if one.get("error") is None}


def _size(path: Path) -> int:
    """Measure a file that another process may remove at any moment."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(part: Path) -> None:
    marks = [part.with_name(part.name + mark) for mark in (".done", ".writing", ".launch")]
    for path in (settings_path(part), compacting_path(part), *marks, part):
        with suppress(FileNotFoundError):
            path.unlink()
