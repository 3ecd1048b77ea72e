"""Checks what a user gave for a setting, by the setting's name."""

from __future__ import annotations

from numbers import Integral, Real

from adafv.errors import InputError, shown


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices; raises `InputError`."""
    if value not in choices:
        known = ", ".join(choices)
        raise InputError(f"{name}: {shown(value)} is not one of {known}", f"choose from {known}")


def check_number(name: str, value: object, *, whole: bool = False) -> None:
    """Refuse what is no number; raises `InputError`."""
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name}: {shown(value)} is not {kind}", f"give {kind}")


def check_text(name: str, value: object) -> None:
    """Refuse what is no text that can be written; raises `InputError`."""
    if not isinstance(value, str):
        raise InputError(f"{name}: {shown(value)} is no text", "give a str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name}: half a surrogate pair in {shown(value)}", "give it as UTF-8") from None
