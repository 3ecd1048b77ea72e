"""Finds out whether a launcher (torchrun, accelerate) started this process as one of several, and what its share is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adafv.errors import shown
from adafv.settings import LoadSettings
from adafv_cli.exits import UsageError
from adafv_cli.work.shard import Shard

_START = 19  # the start time among what follows the name in /proc/PID/stat
_FIX = "start them with torchrun --nproc-per-node N -m adafv_cli batch ..."


@dataclass(frozen=True)
class World:
    """One of `size` processes of one launch on this machine, numbered from 0; `launch` tells launches apart."""

    rank: int = 0
    size: int = 1
    launch: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> World:
        """Read what the launcher says.

        Raises:
            UsageError: it was asked for several processes and started one, or they are on several machines.
        """
        if "WORLD_SIZE" not in environment or "RANK" not in environment:
            if "MASTER_PORT" in environment and "ACCELERATE_MIXED_PRECISION" in environment:
                # `accelerate launch --cpu --num_processes 2` starts one process, and says nothing.
                raise UsageError("accelerate was asked for several processes and started one", _FIX)
            return cls()
        rank, size = (_number(environment, name) for name in ("RANK", "WORLD_SIZE"))
        if (rank, size) == (0, 1):  # clusters say so, and name no LOCAL_WORLD_SIZE
            return cls()
        local = _number(environment, "LOCAL_WORLD_SIZE")
        if local != size:
            what = f"{size} processes on several machines ({local} on this one), which share no file"
            raise UsageError(what, "give each machine its --shard and its -o, and torchrun on each")
        if not 0 <= rank < size:
            raise UsageError(f"RANK {rank} of WORLD_SIZE {size}", _FIX)
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
        return cls(rank, size, "-".join([*(environment.get(name, "") for name in names), _launcher()]))

    def share(self, shard: Shard) -> Shard:
        """Divide a shard among the processes."""
        return Shard(shard.index + shard.count * self.rank, shard.count * self.size)

    def placed(self, settings: LoadSettings) -> LoadSettings:
        """Give this process a device of its own, unless the user has chosen one.

        Raises:
            DeviceError: there are fewer devices than processes.
        """
        if self.size == 1 or settings.device_map != "auto":
            return settings
        from adafv.loading.devices import device_of

        return replace(settings, device_map=device_of(self.rank, self.size))


def _launcher() -> str:
    """Name the process that started this one, by its start, too: in a container, the next has the same number."""
    number = os.getppid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return f"{number}-{fields[_START]}-{boot}"
    except (OSError, IndexError):
        pass
    try:
        asked = ["ps", "-o", "lstart=", "-p", str(number)]
        told = subprocess.run(asked, capture_output=True, check=False, text=True, timeout=10, env={"LC_ALL": "C"})
        return f"{number}-{told.stdout.strip()}"
    except (OSError, subprocess.SubprocessError):  # no such thing: the number has to do
        return str(number)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(f"{name} is {shown(text)} in the environment", _FIX)
    return int(text)
