"""Opens the output of a batch, for this process alone or for one of several, and brings it together in the end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from adafv import __version__
from adafv_cli.console import QUIET, Streams
from adafv_cli.exits import Exit, UsageError
from adafv_cli.files import written_into
from adafv_cli.work.earlier import Found, Keys
from adafv_cli.work.outlog import Log
from adafv_cli.work.parts import LAUNCH, Parts
from adafv_cli.work.recorded import AUTO, SUSPECTS, check_dtype, dtypes_in
from adafv_cli.work.world import World

_ENDED = (Exit.OK, Exit.SOME_FAILED, Exit.BUG)


class Launch:
    """What one process of a launch does besides answering its share.

    Args:
        world: the launch; of one process where there is no launcher.
        out: where the answers go in the end, `None` for stdout.
        resume, force: go on with what is there, or replace it.
        keys: by what answers are told apart.
        recorded: the settings that a resumed run has to repeat.
    """

    def __init__(
        self, world: World, out: Path | None, *, resume: bool, force: bool, keys: Keys, recorded: Mapping[str, Any]
    ) -> None:
        self.world, self._out, self._keys, self._recorded = world, out, keys, recorded
        self._resume, self._force = resume, force
        self._parts = None if out is None or written_into(out) else Parts(out, world)
        self._stamped = {"adafv": __version__} | dict(recorded)
        self._whole: Log | None = None
        self._begun = False
        self._stack = ExitStack()

    @property
    def mark(self) -> dict[str, Any]:
        """What the settings of a part say of the launch."""
        return {LAUNCH: self.world.launch} if self.world.size > 1 else {}

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *error: Any) -> None:
        """Close the output."""
        self._stack.__exit__(*error)

    def check(self, source: object | None, report: Path | None) -> None:
        """See that several processes can do it.

        Raises:
            UsageError: an input that is read once, an output that is no file, or a report.
        """
        if self.world.size == 1:
            return
        if source is None:
            raise UsageError("INPUT is a pipe, which one process alone can read", "give a file of questions")
        if self._parts is None:
            raise UsageError("several processes write no stdout and no pipe", "give -o FILE")
        if report is not None:
            raise UsageError("--report: no process has seen all answers", "leave it out")

    def log(
        self, stack: ExitStack, order: Callable[[], Iterable[int]], alone: Callable[[], Log | None], streams: Streams
    ) -> tuple[Log | None, Found]:
        """Open where this process writes until the stack ends, which is before `end`, and read what there is of all.

        Args:
            stack: closes it.
            order: keys of the input's lines.
            alone: opens the output for a process that works alone.
            streams: the first process alone says how it goes.

        Raises:
            UsageError, InputError: it cannot be written, or not gone on with.
        """
        if self._parts is not None:
            self._parts.check(resume=self._resume, force=self._force)
        if self.world.size > 1:
            streams.verbosity = QUIET if self.world.rank else streams.verbosity
            return self._open(stack)
        self._gather(order)
        log = alone()
        if self._parts is not None and not self._resume:
            self._parts.clear()
        return log, log.found if log is not None else Found()

    def _gather(self, order: Callable[[], Iterable[int]]) -> None:
        """Merge the parts that a launch left behind, before a process works alone."""
        if self._parts is None:
            return
        if self.world.size == 1 and self._resume and self._out is not None and self._parts.traces():
            self._parts.found(self._keys, self._recorded)
            with Log(self._out, resume=True, keys=self._keys) as log:
                known = next(iter(dtypes_in(self._all)), self._recorded.get("dtype", AUTO))
                check_dtype(self._all, known)
                log.begin(self._stamped | self._remembered() | {"dtype": known})
                self._parts.merge(log, self._keys, order())

    @property
    def _all(self) -> list[Path]:
        """The output and all parts of it that there are."""
        beside = [] if self._parts is None else self._parts.there()
        return [*(path for path in (self._out,) if path is not None and path.exists()), *beside]

    def _open(self, stack: ExitStack) -> tuple[Log, Found]:
        if self._parts is None or self._out is None:
            raise UsageError("several processes write no stdout and no pipe", "give -o FILE")
        if self.world.rank == 0:
            self._whole = self._stack.enter_context(
                Log(self._out, resume=self._resume, force=self._force, keys=self._keys)
            )
            self._whole.check(self._recorded)
            self._stack.callback(self._parts.disclaim)
            self._parts.claim()
        else:
            self._parts.follow()
        found = self._parts.found(self._keys, self._recorded) if self._resume else Found()
        own = stack.enter_context(Log(self._parts.own, resume=self._resume, force=True, keys=self._keys))
        own.suspects = self._parts.suspects() if self._resume else {}
        return own, found

    def begin(self, dtype: str | None = None) -> None:
        """Make the whole output ready, as the first process, once: the model has loaded, or nothing was to be done.

        Args:
            dtype: of the weights, where they are loaded; without, it stays what other processes had.

        Raises:
            UsageError: other processes, or an earlier launch, answered with another one.
        """
        if self._parts is not None and self.world.size > 1:
            there = self._all if self._resume else self._parts.there(ours=True)
            known = self._stamped["dtype"] = dtype or next(iter(dtypes_in(there)), self._stamped["dtype"])
            check_dtype(there, known)
        if self._whole is None or self._parts is None or self._begun:
            return
        self._begun = True
        if not self._resume:
            self._parts.clear()
        self._whole.begin(self._stamped | self._remembered())

    def _remembered(self) -> dict[str, Any]:
        suspects = self._parts.suspects() if self._parts is not None and self._resume else {}
        return {SUSPECTS: suspects} if suspects else {}

    def end(self, code: Exit, order: Callable[[], Iterable[int]], streams: Streams) -> Exit:
        """End a share: say so, or, as the first process, wait for the others and merge.

        Args:
            code: how the share went.
            order: keys of the input's lines.
            streams: where to say what came of it.

        Returns:
            What to exit with. Launchers end all processes when one fails, so that only the first says of failed lines.
        """
        if self.world.size == 1 or self._parts is None or code not in _ENDED:
            return code
        if self._whole is None:
            self._parts.finish(code)
            return Exit.OK
        with streams.busy("waiting for the other processes"):
            code = max(code, self._parts.wait())
        self.begin()
        count = self._parts.merge(self._whole, self._keys, order())
        streams.say(f"{self.world.size} processes have written {count} lines into {self._whole.path.name}")
        return code


def resume_command(args: list[str], processes: int = 1) -> str:
    """Make the command line that goes on with a run's output."""
    kept = [arg for arg in args if arg not in ("--force", "--resume")]
    begin = f"torchrun --nproc-per-node {processes} -m adafv_cli" if processes > 1 else "adafv"
    return f"{begin} {shlex.join([*kept[:1], '--resume', *kept[1:]])}"
