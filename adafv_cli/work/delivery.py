"""An output that has an address: kept as a log in a work folder of this machine, and brought there bit by bit.

Nothing can be appended to an object, so what is new goes beside it once a minute, as a part, and when the run has ended
the whole takes their place. `--resume` takes in the whole, the parts and what the work folder has, on this machine or
another, each line once. What kills this process costs nothing; what takes the machine away costs the last minute.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from adafv.errors import AdaFVError, cut
from adafv_cli.console import Streams
from adafv_cli.exits import Exit, UsageError
from adafv_cli.work.addresses import Address, explained, located, make, reason, work_path
from adafv_cli.work.locking import opened
from adafv_cli.work.objects import Objects, add_new
from adafv_cli.work.recorded import SUSPECTS, settings_in, settings_path, suspects_in
from adafv_cli.work.world import World
from adafv_cli.writing import write_json

EVERY_S = 60.0
_PIECE = 64 * 2**20  # bytes of a part at most
_ENDED = (Exit.OK, Exit.SOME_FAILED, Exit.BUG)


def delivery(
    output: str | None, source: str, *, resume: bool, force: bool, streams: Streams, dry: bool = False
) -> Delivery:
    """Make what brings the answers of a run to where they belong.

    Args:
        output, source: as they were typed.
        resume, force: go on with what is there, or replace it.
        streams: where to say how it goes.
        dry: nothing is to be written.

    Raises:
        UsageError: an address that cannot be written.
    """
    address = located(output or "-")
    if not isinstance(address, Address):
        return Delivery()
    if World.of(os.environ).size > 1:
        raise UsageError("-o: several processes write no address", "give a file of this machine, and copy it")
    if address.is_web:
        raise UsageError(f"-o: {cut(str(address))}: web servers take no files", "give s3://, gs://, hdfs://, ...")
    if str(address).endswith("/"):
        raise UsageError(f"-o: {cut(str(address))} is a folder", "give the address of a file")
    if address == located(source):
        raise UsageError(f"-o: {cut(str(address))} is the input", "give it a file of its own")
    return AddressDelivery(address, resume=resume, force=force, streams=streams, dry=dry)


class Delivery:
    """Brings answers nowhere: they go to a file or to stdout."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Do nothing."""

    def begin(self) -> None:
        """Do nothing."""

    def end(self, code: Exit) -> None:
        """Do nothing."""


class AddressDelivery(Delivery):
    """Brings the log of a run to its address; see `delivery`."""

    def __init__(self, address: Address, *, resume: bool, force: bool, streams: Streams, dry: bool) -> None:
        self._address, self._path = address, work_path(address)
        self._resume, self._force, self._streams, self._dry = resume, force, streams, dry
        self._left = False  # whether the work folder has what is found nowhere else
        self._sent = 0  # bytes of the log
        self._code: Exit | None = None
        self._failing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_sending, name="adafv-delivery", daemon=True)

    def __enter__(self) -> Self:
        """Take in what there is, or see that there is nothing.

        Raises:
            UsageError: it exists, it was made with other settings, or nothing can be written there.
        """
        make(self._path.parent)
        self._lock = opened(self._beside("lock"))
        self._left = self._path.exists()
        try:
            with explained(f"-o: {self._address}"):
                self._objects = Objects(self._address)
                settings = self._objects.fetched_settings(self._beside("settings"))
                if self._resume:
                    self._take_in(settings)
                elif not self._force:
                    self._check_nothing_there()
                if not self._dry:
                    self._objects.try_out()
        except BaseException:
            self._let_go()
            raise
        return self

    def begin(self) -> None:
        """Replace what is to be replaced, now that there is a model, and begin to bring answers."""
        with explained(f"-o: {self._address}"):
            if self._force:
                self._objects.clear(whole=True)
            self._put_settings()
        self._sent = 0 if self._left else self._path.stat().st_size
        self._thread.start()

    def end(self, code: Exit) -> None:
        """Take notice of how the run went: if it has ended, the whole takes the place of its parts."""
        self._code = code

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Bring the whole, or what is new where the run ended early, and let go of the work folder.

        Raises:
            AdaFVError: the whole cannot be brought.
        """
        self._ended.set()
        began = self._thread.is_alive()
        if began:
            self._thread.join()
        try:
            if error is None and self._code in _ENDED and not self._dry:
                self._left = True
                self._bring()
                self._left = False
            elif began:
                self._left = self._path.exists()  # a log that was made for nothing is gone again
                self._send_rest()
        finally:
            self._let_go()

    def _bring(self) -> None:
        try:
            if self._path.exists():
                self._put_settings()
                with self._path.open("rb") as log:
                    self._objects.put(self._objects.whole, log)
            self._objects.clear(whole=self._force and not self._path.exists())
        except Exception as error:
            what = f"-o: cannot write {cut(str(self._address))}: {reason(error)}; all answers are in {self._path}"
            raise AdaFVError(what, "--resume brings them there") from error
        self._streams.say(f"all answers are in {cut(str(self._address))}")

    def _let_go(self) -> None:
        """Leave in the work folder what is found nowhere else, and nothing otherwise."""
        if not self._left:
            shutil.rmtree(self._path.parent.parent, ignore_errors=True)
        os.close(self._lock)

    def _check_nothing_there(self) -> None:
        name, fix = cut(str(self._address)), "--resume goes on with it, --force replaces it"
        if any(map(self._objects.is_there, (self._objects.whole, self._objects.unfinished))):
            raise UsageError(f"-o: {name} exists", fix)
        left = self._objects.parts[0] if self._objects.parts else self._path if self._left else None
        if left is not None:
            raise UsageError(f"-o: {name} has answers of a run that did not end ({left})", fix)

    def _take_in(self, settings: Path | None) -> None:
        """Make the log of the whole, the parts and what is here already: each line once."""
        if settings is not None:
            self._take_in_settings(settings)
        objects, seen = self._objects, set[int]()
        gathered, fetched = self._beside("gathered"), self._beside("fetched")
        with gathered.open("wb") as new:
            for path in filter(objects.is_there, [objects.whole, objects.unfinished, *objects.parts]):
                objects.fetch(path, fetched)
                add_new(fetched, new, seen)
                fetched.unlink()
            brought = new.tell()
            if self._left:
                add_new(self._path, new, seen)
            self._left = new.tell() > brought
        if gathered.stat().st_size:
            gathered.replace(self._path)

    def _take_in_settings(self, fetched: Path) -> None:
        """Record the settings that are there; those that are here must be the same."""
        own = settings_path(self._path)
        there, here = settings_in(fetched), settings_in(own)
        suspects = suspects_in(fetched) | suspects_in(own)
        names = here.keys() & there.keys() - {"adafv", SUSPECTS}
        if self._left and any(here[name] != there[name] for name in names):
            what = f"-o: {self._path} was made with other settings than {cut(str(self._address))}"
            raise UsageError(what, "remove it, or replace both with --force")
        there.pop(SUSPECTS, None)
        write_json(own, there | ({SUSPECTS: suspects} if suspects else {}))

    def _keep_sending(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._send()

    def _send(self) -> None:
        """Bring the lines that are new; what cannot be brought now waits for the next time."""
        try:
            with self._path.open("rb") as log:
                while True:
                    log.seek(self._sent)
                    piece = log.read(_PIECE)
                    piece = piece[: piece.rfind(b"\n") + 1]
                    if not piece:
                        break
                    self._objects.add_part(piece)
                    self._sent += len(piece)
            self._failing = False
        except Exception as error:
            ended = self._ended.is_set()
            if ended or not self._failing:
                later = "--resume brings them" if ended else "it is tried again"
                what = f"answers could not be brought to {cut(str(self._address))}: {reason(error)}"
                self._streams.note(f"{what}; they are in {self._path}, {later}")
            self._failing = True

    def _send_rest(self) -> None:
        """Bring what is new, and the settings; where there is no answer, take these away again."""
        if self._left:
            self._send()
        with suppress(Exception):  # --resume on this machine has them anyway
            if self._left:
                self._put_settings()
            elif not self._objects.parts and not self._objects.is_there(self._objects.whole):
                self._objects.remove(self._objects.settings)

    def _beside(self, name: str) -> Path:
        """Name a file of the work folder that is not the log, whatever that is named."""
        return self._path.parent.with_name(name)

    def _put_settings(self) -> None:
        with suppress(FileNotFoundError):
            self._objects.put(self._objects.settings, settings_path(self._path).read_bytes())
