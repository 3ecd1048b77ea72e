"""Which versions of other packages are needed, and what to say when an older one is installed."""

from __future__ import annotations

import re

from adafv.errors import DeviceError

OLDEST = {
    "torch": "2.6",
    "transformers": "5.17",
    "accelerate": "1.10",
    "huggingface_hub": "1.33",
    "typer": "0.28",
    "rich": "13.8",
    "pillow": "11",
    "numpy": "1.26",
    "matplotlib": "3.8",
}
"""The lower bounds of pyproject.toml: a test holds one against the other."""


def check_versions() -> None:
    """Refuse packages that are too old, before anything of them is imported.

    An installer sees to it; an environment that was made by hand, or with `--no-deps`, may hold anything.

    Raises:
        DeviceError: names the packages, the versions found and the ones needed.
    """
    from importlib import metadata  # slow to import, and `--help` does without

    old = {}
    for name, needed in OLDEST.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # put there without an installer: importing it will tell
        if _numbers(found) < _numbers(needed):
            old[name] = f"{name} {found} is installed, adafv needs {needed} or newer"
    if old:
        wanted = " ".join(f"'{name}>={OLDEST[name]}'" for name in old)
        raise DeviceError("; ".join(old.values()), f"pip install {wanted}")


def _numbers(version: str) -> tuple[int, ...]:
    """Read a version: `2.7.0a0+5228986` is (2, 7, 0), since vendors' builds ahead of a release are taken for it."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()
