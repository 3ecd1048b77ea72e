"""The image and the questions of a command that takes them as arguments, or from standard input."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from adafv.errors import ImageError, InputError, cut, shown
from adafv_cli.console import Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import is_file


def image_and_questions(
    image: str, questions: Sequence[str], streams: Streams, command: str
) -> tuple[str | bytes, list[str]]:
    """Find the image (a path, or its bytes) and the questions.

    Args:
        image: a path, or `-`.
        questions: none, or `-`, where the question comes from standard input.
        streams: of the process.
        command: what messages call the command, `adafv ask`.

    Raises:
        UsageError: both from standard input, nothing piped there, no such file.
        InputError: an empty question.
    """
    from_stdin = list(questions) in ([], ["-"])
    if image == "-" and from_stdin:
        raise UsageError("IMAGE and QUESTION cannot both come from standard input", f'{command} - "QUESTION"')
    if (image == "-" or from_stdin) and streams.stdin.isatty():
        missing = "IMAGE" if image == "-" else "QUESTION"
        what = f"{missing} is missing: nothing is piped to standard input"
        raise UsageError(what, f'{command} IMAGE "QUESTION"')
    source = streams.stdin.buffer.read() if image == "-" else _existing(image, command)
    asked = [_piped_question(streams)] if from_stdin else list(questions)
    for number, question in enumerate(asked, start=1):
        which = f"question {number}" if len(asked) > 1 else "the question"
        if not question.strip():
            raise InputError(f"{which} is empty: {shown(question)}", f'{command} IMAGE "what is this?"')
        if not from_stdin:
            _check_meant(question, image, command)
        try:
            question.encode()
        except UnicodeEncodeError:
            what = f"{which} is not valid UTF-8: {shown(question)}"
            raise InputError(what, "check the terminal's encoding") from None
    return source, asked


def _check_meant(question: str, image: str, command: str) -> None:
    """See that a question is not something else that was put where questions are.

    Raises:
        UsageError: it is an image, or the value of a switch that takes none.
    """
    ask_anyway = f"to ask just that: echo {cut(shlex.quote(question))} | {command} {cut(shlex.quote(image))}"
    if question.lower() in ("true", "false"):
        raise UsageError(f"{question!r} is no question, and switches take no value", f"leave it out; {ask_anyway}")
    if is_file(Path(question)) and _is_image(question):
        what = f"{shown(question)} is an image, where the question should be"
        raise UsageError(what, f"one image at a time; adafv batch takes many; {ask_anyway}")


def _is_image(path: str) -> bool:
    from adafv.images import check_image

    try:
        check_image(path)
    except ImageError:
        return False
    return True


def _existing(image: str, command: str) -> str | bytes:
    if image.startswith(("http://", "https://")):
        what = f"{cut(image)} is a web address, and images are read from files"
        raise UsageError(what, f"curl -sL {cut(image)} | {command} - ...")
    try:
        mode = Path(image).stat().st_mode
    except OSError as error:
        what = f"image {shown(image)}: {error.strerror}"
        raise UsageError(what, "check the path; - reads standard input") from None
    if stat.S_ISFIFO(mode):  # <(...) of a shell can be read only once, and it is checked before it is used
        return Path(image).read_bytes()
    return image


def _piped_question(streams: Streams) -> str:
    try:
        return streams.stdin.buffer.read().decode().strip()
    except UnicodeDecodeError as error:
        what = f"the question on standard input is not UTF-8 text: {error}"
        raise InputError(what, "pipe plain text") from None
