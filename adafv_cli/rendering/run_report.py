"""`--report`: one JSON file that says how a batch was run and what came of it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import adafv
from adafv.errors import AdaFVError
from adafv_cli.files import write_json
from adafv_cli.rendering.tally import Tally

_LIBRARIES = ("torch", "transformers", "accelerate")


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
    ) -> None:
        """Write the file.

        Args:
            tally: what was answered.
            outcome: `finished`, `interrupted`, `stopped at the first failure` or `failed: reason`.
            model: the load settings as they came out.
            counters: of images encoded and found encoded, and lines skipped.
            made: what else came of the answers.

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
            "machine": {"system": platform.platform(), "processor": platform.machine(), "host": platform.node()},
            "totals": tally.totals() | dict(counters),
            "distributions": tally.distributions(),
            **made,
            "failed": [
                {"question_id": line.question_id, "type": line.type, "message": line.message, "fix": line.fix}
                for line in tally.failed
            ],
        }
        try:
            write_json(self._path, content)
        except OSError as error:
            raise AdaFVError(f"--report: cannot write {self._path}: {error.strerror}") from error


def versions() -> dict[str, str | None]:
    """Look up the versions of Python and of the libraries that answers depend on, without importing them."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
