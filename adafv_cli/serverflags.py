"""The flags of the commands whose language model may be a server's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from adafv.settings import LoadSettings, RunSettings
from adafv_cli.exits import UsageError
from adafv_cli.options import LoadFlags

_flag = partial(typer.Option, rich_help_panel="Server")


@dataclass(frozen=True)
class ServedFlags(LoadFlags):
    """Which checkpoint, and which servers run its language model, if any do."""

    server: Annotated[
        str | None, _flag(metavar="URL[,URL]", envvar="ADAFV_SERVER", help="vLLM servers that run the language model.")
    ] = None
    server_insecure: Annotated[
        bool, _flag("--server-insecure", help="Plain http to other machines, too: the network is trusted.")
    ] = False
    server_requests: Annotated[int, _flag(metavar="N", help="Prompts that the servers have at once.")] = (
        LoadSettings.server_requests
    )
    server_timeout: Annotated[float, _flag(metavar="SECONDS", help="How long a server may be silent.")] = (
        LoadSettings.server_timeout
    )

    def settings(self, ctx: typer.Context) -> LoadSettings:
        """Make the library's settings.

        Raises:
            UsageError: a value that cannot be used, or an address that is none.
        """
        chosen = super().settings(ctx)
        if chosen.server is not None:
            from adafv.errors import InputError
            from adafv.serving.addresses import addresses

            try:
                addresses(chosen.server, insecure=chosen.server_insecure)
            except InputError as error:
                raise UsageError(f"--{error.what}", error.fix) from error
        return chosen

    def check(self, run: RunSettings) -> None:
        """See that a server can do what is asked.

        Raises:
            UsageError: it cannot.
        """
        if self.server is None:
            return
        if run.positions == "original":
            what = "--positions original: a server numbers the positions of a prompt itself"
            raise UsageError(what, "leave it out, or --server")
        if run.compare:
            raise UsageError("--compare: a server's queue is in its times", "leave it out, or --server")
