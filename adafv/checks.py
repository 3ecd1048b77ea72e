"""Checks what a user gave for a setting, by the setting's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral, Real

from adafv.errors import InputError, shown

TILES = ("auto", "all")  # or a number


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


def tiles_text(value: object) -> str:
    """Read which tiles are encoded: `all`, `auto`, or a number, in one form for each; raises `InputError`."""
    text = str(value).strip().lower()
    if text in TILES and isinstance(value, str):
        return text
    fix = "give a number of tiles (2), auto, or all"
    if isinstance(value, bool) or not isinstance(value, str | Integral) or not re.fullmatch("[0-9]{1,18}", text):
        raise InputError(f"tiles: {shown(value)} is no number of tiles", fix)
    if int(text) < 1:
        raise InputError(f"tiles: {shown(value)} encodes no tile", fix)
    return str(int(text))


def check_select(select: str, pruner: str, two_lists: Sequence[str], *, each_crop: bool, tiles: str) -> None:
    """Refuse a choice for all questions that other settings stand against; raises `InputError`.

    Args:
        select, pruner, each_crop, tiles: as of `RunSettings`.
        two_lists: pruners whose choice can be taken apart.
    """
    if select == "split" and pruner not in two_lists:
        what = f"select: split takes apart what saliency and what words chose, and {pruner} keeps no two lists"
        raise InputError(what, f"use image, or the pruner {' or '.join(two_lists)}")
    if select == "split" and each_crop:
        what = "select: split takes apart a choice among all crops, and here each has a budget of its own"
        raise InputError(what, "use image, or crop_budget joint")
    if select != "question" and tiles != "all":
        what = (
            f"select: {select} chooses among the same tokens for all questions, and tiles {tiles} are each question's"
        )
        raise InputError(what, "use one of the two")
