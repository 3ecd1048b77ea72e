"""`--report`: one JSON file that says how a batch was run and what came of it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import adafv
from adafv.errors import AdaFVError
from adafv_cli.rendering.documents import KINDS, document
from adafv_cli.rendering.tally import Tally
from adafv_cli.writing import write_bytes, write_json

_LIBRARIES = ("torch", "transformers", "accelerate")


class Results(Protocol):
    """What a document needs of a sweep's results."""

    def said(self) -> list[str]:
        """Sentences about the whole."""

    def figure(self, kind: str, *, partial: bool) -> bytes:
        """Draw the curve."""


class RunReport:
    """A report that is written when a run ends, however it ends; not where its reader went away.

    Args:
        path: of the file; an earlier report is replaced.
        settings: everything that was chosen.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, dict(settings)
        self._started = datetime.now(UTC)

    def write(
        self,
        tally: Tally,
        outcome: str,
        model: Mapping[str, object],
        counters: Mapping[str, int],
        made: Mapping[str, Any],
        results: Results | None = None,
    ) -> None:
        """Write the file: JSON, or of a sweep the document that its name asks for.

        Args:
            tally: what was answered.
            outcome: `finished`, `interrupted`, `stopped at the first failure` or `failed: reason`.
            model: the load settings as they came out.
            counters: of images encoded and found encoded, and lines skipped.
            made: what else came of the answers.
            results: of a sweep, whose sentences and figure a document has.

        Raises:
            AdaFVError: it cannot be written.
        """
        content = {
            "adafv": adafv.__version__,
            "command": sys.argv[1:],
            "outcome": outcome,
            "started": self._started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": self._settings,
            "model": dict(model),
            "versions": versions(),
            "machine": machine(),
            "totals": tally.totals() | dict(counters),
            "distributions": tally.distributions(),
            **made,
            "failed": [
                {"question_id": line.question_id, "type": line.type, "message": line.message, "fix": line.fix}
                for line in tally.failed
            ],
        }
        kind = self._path.suffix.lower().removeprefix(".")
        try:
            if results is not None and kind in KINDS and content.get("points"):
                said, figure = results.said(), results.figure("svg", partial=outcome != "finished")
                write_bytes(self._path, document(kind, content, said, figure, self._settings.get("plot")))
            else:
                write_json(self._path, content)
        except OSError as error:
            raise AdaFVError(f"--report: cannot write {self._path}: {error.strerror}") from error


def machine() -> dict[str, object]:
    """Say what it ran on; accelerators where torch has been loaded."""
    found: dict[str, object] = {"system": platform.platform(), "processor": platform.machine(), "host": platform.node()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return found | {"cores": os.cpu_count()}


def versions() -> dict[str, str | None]:
    """Look up the versions of Python and of the libraries that answers depend on, without importing them."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
