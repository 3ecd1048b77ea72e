"""The flags of a batch that a cluster answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from adafv.errors import InputError, shown
from adafv.spreading.settings import ClusterSettings
from adafv_cli.exits import UsageError
from adafv_cli.work.world import World

ENGINES = ("transformers", "ray")

_flag = partial(typer.Option, rich_help_panel="Cluster")


@dataclass(frozen=True)
class ClusterFlags:
    """By what the questions are answered: this process, or the actors of a Ray cluster."""

    engine: Annotated[str, _flag(help="transformers: here; ray: by the actors of a cluster.")] = "transformers"
    address: Annotated[
        str | None, _flag(metavar="HOST:PORT", envvar="RAY_ADDRESS", help="The cluster's head; default: this machine.")
    ] = None
    actors: Annotated[int | None, _flag(metavar="N", help="Each with a model; default: as many as GPUs.")] = None
    gpus_per_actor: Annotated[float | None, _flag(metavar="F", help="A part of a GPU (0.5), or whole ones.")] = None

    def settings(self, environment: Mapping[str, str]) -> ClusterSettings | None:
        """Make the library's settings; `None` where this process answers.

        Raises:
            UsageError: a value or a combination that cannot be used.
        """
        if self.engine not in ENGINES:
            known = ", ".join(ENGINES)
            fix = f"choose from {known}" + ("; for vLLM, give --server URL" if self.engine == "vllm" else "")
            raise UsageError(f"--engine: {shown(self.engine)} is not one of {known}", fix)
        if self.engine != "ray":
            address = None if self.address == environment.get("RAY_ADDRESS") else self.address
            if (address, self.actors, self.gpus_per_actor) != (None, None, None):
                raise UsageError("--address, --actors and --gpus-per-actor are of a cluster", "add --engine ray")
            return None
        if World.of(environment).size > 1:
            raise UsageError("--engine ray has processes of its own", "leave torchrun out")
        try:
            return ClusterSettings(self.address, self.actors, self.gpus_per_actor)
        except InputError as error:
            name, _, rest = error.what.partition(":")
            raise UsageError(f"--{name.replace('_', '-')}:{rest}", error.fix) from error
