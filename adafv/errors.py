"""The errors that users meet: each says what is wrong, with the value, and how to put it right."""

from __future__ import annotations


class AdaFVError(Exception):
    """Base of every error raised on purpose.

    Args:
        what: one sentence that names the offending value.
        fix: what the user can do about it; empty when there is nothing to be done.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}\n  {fix}" if fix else what)


class InputError(AdaFVError):
    """A question, a setting or scores that cannot be used."""


class ImageError(InputError):
    """An image that cannot be read."""


class BudgetError(InputError):
    """A budget (`keep`) that is no budget."""


class CheckpointError(AdaFVError):
    """A checkpoint that is missing, broken, or of a family that is not supported."""


class DeviceError(AdaFVError):
    """A device that is not there or has too little memory."""


class OutOfMemoryError(DeviceError):
    """A device that has too little memory for what was asked of it at once."""


class ServerError(DeviceError):
    """A server that answers for the language model and cannot be gone on with.

    Args:
        what, fix: as of every error.
        strikes: how often a server has died while it was at the prompt that this is raised for.
    """

    def __init__(self, what: str, fix: str = "", strikes: int = 0) -> None:
        self.strikes = strikes
        super().__init__(what, fix)


class PoisonError(InputError):
    """A question that a server has died of twice."""


class InternalError(AdaFVError):
    """A defect: something that nobody foresaw, in adafv or in a library.

    Args:
        what, fix: as of every error.
        origin: the traceback, as text.
    """

    def __init__(self, what: str, fix: str = "", origin: str = "") -> None:
        self.origin = origin
        super().__init__(what, fix)


def shown(value: object) -> str:
    """Quote a value for a message, cut where it is long."""
    return cut(repr(value))


def cut(text: str, most: int = 200) -> str:
    """Leave out the middle of a text that is too long for a message."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]}...{text[-(most // 4) :]}"
