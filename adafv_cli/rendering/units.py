"""Numbers for people: three digits that mean something, and a unit."""

from __future__ import annotations

System = tuple[int, tuple[str, ...]]
DECIMAL: System = (1000, ("", "K", "M", "G", "T", "P", "E"))
BINARY: System = (1024, ("", "Ki", "Mi", "Gi", "Ti"))


def amount(count: int, system: System, unit: str = "") -> str:
    """Write an amount: `2.91 TFLOPs`."""
    divisor, prefix = scale(count, system)
    return f"{digits(count / divisor)} {prefix}{unit}"


def part_of(part: int, whole: int, system: System, unit: str) -> str:
    """Write `2.91 of 8.64 TFLOPs`, both in the larger one's unit."""
    divisor, prefix = scale(max(part, whole), system)
    return f"{digits(part / divisor)} of {digits(whole / divisor)} {prefix}{unit}"


def digits(value: float) -> str:
    """Three digits that mean something."""
    decimals = 0 if value >= 99.95 or value == 0 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}"


def less(part: float, whole: float) -> str:
    """Write how much less a part is than the whole, or how much more: `59% saved`, `3% more`."""
    share = round(100 * (1 - part / whole))
    return f"{share}% saved" if share >= 0 else f"{-share}% more"


def percent(part: float, whole: float) -> str:
    """Write `part` as a percentage of `whole`; 100% where `whole` is 0."""
    share = 100 * part / whole if whole else 100.0
    return f"{share:.0f}%" if share >= 1 or share == 0 else f"{share:.1f}%"


def duration(seconds: float) -> str:
    """Write a duration: `123 ms`, `12.3 s`, `4 min 10 s`, `3 h 05 min`."""
    if seconds < 0.9995:  # which would be 1000 ms
        return f"{digits(seconds * 1000)} ms"
    if seconds < 99.5:
        return f"{digits(seconds)} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def scale(count: int, system: System) -> tuple[int, str]:
    """Find the divisor and prefix that leave a number below the next one as it is written."""
    base, prefixes = system
    power = 0
    # 999,600 would be 1000 K
    while round(count / base**power) >= base and power < len(prefixes) - 1:
        power += 1
    return base**power, prefixes[power]
