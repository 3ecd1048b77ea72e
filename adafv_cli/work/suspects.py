"""Remembers the lines that a server had when it died, so that the one that it died of is found, and hurts no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adafv.errors import PoisonError
from adafv.records import Answer
from adafv_cli.work.lines import Line, id_key
from adafv_cli.work.outlog import Log
from adafv_cli.work.recorded import SUSPECTS, record

if TYPE_CHECKING:
    from adafv.streaming.answerer import Suspect

_DEADLY = 2


class Suspects:
    """Lines that a server has died at: in this run, or in earlier ones into the same file.

    Args:
        log: where answers go, `None` where nothing can be remembered.
    """

    def __init__(self, log: Log | None) -> None:
        self._path = log.settings_path if log is not None and log.regular else None
        self._strikes = dict(log.suspects) if log is not None else {}
        self._saved = dict(self._strikes)

    def strikes(self, line: Line) -> int:
        """Count the servers that died at a line."""
        return self._strikes.get(_key(line.question_id, line.text), 0)

    def last(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Give the lines in order, but suspects behind all others."""
        held = []
        for line in lines:
            if self._strikes and self.strikes(line):
                held.append(line)
            else:
                yield line
        yield from held

    def take(self, answers: Sequence[Answer]) -> None:
        """Learn from the answers of a line whether it was the one."""
        for answer in answers:
            key = _key(answer.question_id, answer.prompt)
            if answer.error is None:
                self._strikes.pop(key, None)
            elif answer.error.type == PoisonError.__name__:
                self._strikes[key] = _DEADLY

    def died(self, suspects: Sequence[Suspect]) -> None:
        """Note the questions that a server had when it died."""
        for one in suspects:
            key = _key(one.question.question_id, one.question.text)
            self._strikes[key] = max(one.strikes, self._strikes.get(key, 0))

    def beside(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Add what is remembered to the settings of the run."""
        return dict(settings) | ({SUSPECTS: dict(self._strikes)} if self._strikes else {})

    def save(self, settings: Mapping[str, Any]) -> None:
        """Record what was learned beside the answers, where they are in a file."""
        if self._path is not None and self._strikes != self._saved:
            record(self._path, self.beside(settings))
            self._saved = dict(self._strikes)


def _key(question_id: Any, text: str) -> str:
    return str(id_key(question_id, text))
