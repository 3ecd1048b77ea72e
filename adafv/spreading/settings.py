"""What a user may choose of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from adafv.errors import InputError


@dataclass(frozen=True)
class ClusterSettings:
    """Where actors run, how many, and with what.

    Args:
        address: `host:port` of the cluster's head, `auto` for the one that was started on this machine, or `local` for
            one of this machine alone, which ends with the run; `None` is what `RAY_ADDRESS` says, or else what `auto`
            finds, or else `local`.
        actors: each with a model of its own; `None` for as many as the GPUs allow, or one a node where there are none.
        gpus_per_actor: a part of one, or whole ones; `None` for one where the cluster has any.

    Raises:
        InputError: a value that cannot be used.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float | None = None

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise InputError(f"actors: {self.actors} answer nothing", "give 1 or more")
        gpus = self.gpus_per_actor
        if gpus is not None and not (gpus == 0 or 1e-4 <= gpus <= 1 or (1 < gpus < float("inf") and gpus == int(gpus))):
            raise InputError(f"gpus_per_actor: {gpus} is no share", "give a part of one (0.5), or whole ones (2)")
        if self.address is not None and self.address.startswith("ray://"):
            what = f"address: {self.address} is for Ray's client, which actors do not answer"
            raise InputError(what, "start adafv on a node of the cluster, and give the head's address (HOST:6379)")
