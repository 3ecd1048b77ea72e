"""Reading `--device-map` and `--max-memory`: where the weights of a checkpoint go."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from adafv.errors import cut, shown
from adafv.settings import DeviceMap
from adafv_cli.exits import UsageError
from adafv_cli.files import is_file

NAMES = ("auto", "cpu", "cuda", "balanced", "balanced_low_0", "sequential", "mps", "xpu")

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|disk)(:[0-9]+)?")
_SIZE = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})? ?([KMGT]i?B)?", re.IGNORECASE)


def device_map(text: str, flag: str = "--device-map") -> DeviceMap:
    """Read a strategy or device by name, or the module-to-device mapping in a JSON file.

    Raises:
        UsageError: neither, or a file that holds something else.
    """
    if text in NAMES or re.fullmatch(r"(cuda|mps|xpu):[0-9]+", text):
        return text
    fix = f"give {', '.join(NAMES[:3])}, cuda:1, balanced, sequential, or a JSON file of module: device"
    path = Path(text)
    if not is_file(path):
        missing = " (no such file)" if path.suffix == ".json" else ""
        raise UsageError(f"{flag}: {shown(text)} is no device map{missing}", fix)
    found = _read_file(path, flag, fix)
    places: dict[str, int | str] = {}
    for module, device in found.items():
        by_number = isinstance(device, int) and not isinstance(device, bool) and device >= 0
        if not by_number and not (isinstance(device, str) and _DEVICE.fullmatch(device)):
            what = f"{flag}: {cut(text)}: {shown(module)} is sent to {shown(device)}"
            raise UsageError(what, 'give 0, "cuda:0", "cpu" or "disk"')
        places[module] = device  # type: ignore[assignment]
    return places


def max_memory(text: str | None, flag: str = "--max-memory") -> Mapping[int | str, int | str] | None:
    """Memory per device: `0=20GiB,cpu=64GiB`, the same as a JSON object, or the path of a JSON file.

    Raises:
        UsageError: something else.
    """
    if text is None:
        return None
    fix = "give it as 0=20GiB,cpu=64GiB, or as a JSON object or file of the same"
    if text.lstrip().startswith("{"):
        found = _read_object(text, flag, fix)
    elif is_file(Path(text)):
        found = _read_file(Path(text), flag, fix)
    else:
        parts = [part.partition("=") for part in text.split(",")]
        found = {device.strip(): size.strip() for device, _, size in parts}
    limits: dict[int | str, int | str] = {}
    for device, size in found.items():
        number = device.removeprefix("cuda:")
        if not re.fullmatch("[0-9]{1,4}", number) and device not in {"cpu", "mps", "disk"}:
            raise UsageError(f"{flag}: {shown(device)} is no device", fix)
        if isinstance(size, bool) or not _SIZE.fullmatch(str(size)):
            raise UsageError(f"{flag}: {shown(size)} is no size for device {device}", fix)
        amount = str(size).replace(" ", "")
        place = int(number) if number.isdecimal() else device
        limits[place] = int(amount) if amount.isdecimal() else amount
    return limits


def _read_file(path: Path, flag: str, fix: str) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{flag}: {cut(str(path))}: {error.strerror}", "check the path") from None
    return _read_object(text, f"{flag}: {cut(str(path))}", fix)


def _read_object(text: str, where: str, fix: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}", fix) from error
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{where} is not a JSON object with entries", fix)
    return found
