"""Marks for one answer: exact, soft VQA accuracy, yes or no; and which of them a file of questions calls for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adafv.quality.markers import MARKERS
from adafv.quality.normalisation import normalise
from adafv.quality.official import vqa_sides

METRICS = ("auto", "exact", "vqa", "yes-no", *MARKERS)
KEYS = ("answers", "answer", "label")  # of a question's metadata; the first that says something counts

GROUPED_BY = {name: marker.by for name, marker in MARKERS.items()}  # the key that a metric needs questions grouped by
_ANSWERS_OF_VQA = 10
_DEEPEST = 5  # lists in lists


@dataclass(frozen=True)
class Accepted:
    """What would be right.

    Args:
        answers: normalised, as many as were given.
        said: the same as they were given.
        human: whether they are several people's, of whom some may be wrong, rather than all right.
    """

    answers: tuple[str, ...]
    human: bool = False
    said: tuple[str, ...] = ()

    @property
    def yes(self) -> bool | None:
        """Whether yes is right, `None` where it is no such question."""
        said = set(self.answers)
        return said == {"yes"} if said in ({"yes"}, {"no"}) else None


@dataclass(frozen=True)
class Mark:
    """What an answer is worth, from 0 to 1; `said_yes` as POPE reads it."""

    exact: float
    vqa: float
    said_yes: bool


def accepted(metadata: Mapping[str, Any]) -> Accepted | None:
    """Read the answers that a question came with: a string, a number, true or false, or a list of them.

    In VQA's own form each of the list is an object with `answer`. Such a list, one of ten, and one in which an answer
    is repeated word for word are taken for several people's answers; any other, such as `["2", "two"]`, for answers
    that are all right.
    """
    given = next((metadata[key] for key in KEYS if _texts(metadata.get(key))), None)
    texts = _texts(given)
    if not texts:
        return None
    objects = isinstance(given, list) and any(isinstance(one, dict) for one in given)
    answers = tuple(map(normalise, texts))
    human = objects or len(answers) == _ANSWERS_OF_VQA or len(set(texts)) < len(texts)
    return Accepted(answers, human, tuple(texts))


def _texts(given: Any, depth: int = 0) -> list[str]:
    """Turn answers into strings; anything that is no answer gives none."""
    if isinstance(given, bool):
        return ["yes" if given else "no"]
    if isinstance(given, str):
        return [given] if given.strip() else []
    if isinstance(given, int | float):
        return [str(int(given)) if given == int(given) else str(given)]
    if isinstance(given, list) and depth < _DEEPEST:
        nested = [_texts(one.get("answer") if isinstance(one, dict) else one, depth + 1) for one in given]
        return [text for texts in nested for text in texts]
    return []


def mark(text: str, right: Accepted) -> Mark:
    """Mark an answer, for `vqa` with what the published evaluation makes of both sides."""
    soft = soft_vqa(*vqa_sides(text, right.said or right.answers))
    return Mark(exact(normalise(text), right.answers), soft, says_yes(text))


def exact(said: str, answers: tuple[str, ...]) -> float:
    """Mark an answer 1 where, normalised, it is one of the accepted."""
    return float(said in answers)


def soft_vqa(said: str, answers: tuple[str, ...]) -> float:
    """VQA accuracy: min(people who said so / 3, 1), averaged over all ways to leave one of the people out.

    It is made for ten people, of whom three are a third of the nine that are left. Of fewer it takes a third of those
    who are left, so that what all of them said is right; with a single accepted answer it is `exact`.
    """
    people, same = len(answers), answers.count(said)
    if people == 1:
        return float(same)
    enough = min(people - 1, _ANSWERS_OF_VQA - 1) / 3
    left_out_who_said_so = same * min((same - 1) / enough, 1)
    left_out_another = (people - same) * min(same / enough, 1)
    return (left_out_who_said_so + left_out_another) / people


def says_yes(text: str) -> bool:
    """Read an answer as POPE does: yes, unless its first sentence has the word `no` or `not`."""
    words = text.split(".")[0].replace(",", "").lower().split()
    return not {"no", "not"} & set(words)


def called_for(questions: int, yes_no: int, human: int) -> str:
    """Choose the metric that the data calls for.

    Args:
        questions: that came with an answer.
        yes_no: of these, where yes or no is right.
        human: of these, with several people's answers.
    """
    if 0 < questions == yes_no:
        return "yes-no"
    return "vqa" if 0 < questions == human else "exact"
