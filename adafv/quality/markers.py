"""Marks for one answer by rules that not every file of questions calls for: choices, near misses, a benchmark's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adafv.quality.official import textvqa_words

Metadata = Mapping[str, Any]

_LETTERS = "ABCDEFGHIJ"
_SAYS = re.compile(r"The answer is ([A-Z])")
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ENOUGH = 0.5  # of the letters may be wrong for ANLS
_NEAR = 0.05  # of a number
_TEN = 10  # people


@dataclass(frozen=True)
class Marker:
    """A rule.

    Args:
        reference: makes of a question's metadata what answers are held to; `None` where it comes without.
        mark: `(answer, reference)`, from 0 to 1.
        answers: makes of a reference what may be said and is worth anything, written alike where it is worth the same;
            `None` where nearness counts, or several answers together.
        by: the key of the metadata that the rule's own score is summed up by.
    """

    reference: Callable[[Metadata], Any]
    mark: Callable[[str, Any], float]
    answers: Callable[[Any], list[str]] | None = None
    by: str | None = None


@dataclass(frozen=True)
class Choice:
    """A letter that is right, and the options as far as they are known."""

    letter: str
    options: tuple[str, ...]


def given(metadata: Metadata) -> list[str] | None:
    """List the accepted answers as they are written: of `answers` (VQA's form too), `answer` or `label`."""
    found = next((metadata[key] for key in ("answers", "answer", "label") if metadata.get(key) not in (None, [])), None)
    listed = found if isinstance(found, list) else [found]
    texts = [one.get("answer") if isinstance(one, dict) else one for one in listed]
    return [str(text) for text in texts if isinstance(text, str | int | float)] or None


def choice(metadata: Metadata) -> Choice | None:
    """Read which letter is right: a letter, the number of an option from 0, or an option; `choices` lists them.

    Where options are named like letters, only `letter`, which benchmarks' files are read with, is never mistaken.
    """
    answer, listed = metadata.get("answer"), metadata.get("choices", metadata.get("options"))
    options = tuple(map(str, listed)) if isinstance(listed, list) else ()
    letter = metadata.get("letter")
    if isinstance(letter, str) and letter in tuple(_LETTERS[: len(options) or len(_LETTERS)]):
        return Choice(letter, options)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return Choice(_LETTERS[answer], options)
    if isinstance(answer, str) and answer in options and len(options) <= len(_LETTERS):
        return Choice(_LETTERS[options.index(answer)], options)
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in _LETTERS:
        return Choice(answer.strip().upper(), options)
    return None


def letter_said(text: str) -> str:
    """Read a letter as LLaVA's `eval_science_qa.py`: "A", "A. red", or one "The answer is A."; else ""."""
    text = text.strip()
    if len(text) == 1 and text in _LETTERS:
        return text
    if text[:1] in _LETTERS and text[1:3] == ". ":
        return text[:1]
    found = _SAYS.findall(text)
    return found[0] if len(found) == 1 else ""


def option_said(text: str, options: Sequence[str]) -> str:
    """Read a letter as VLMEvalKit without a judge: the one among the words, else the one option that is named."""
    letters = _LETTERS[: len(options)]
    words = text.translate(_PUNCTUATION).split()
    there = [letter for letter in letters if letter in words]
    if len(there) == 1:
        return there[0]
    said, lower = text.lower(), [option.lower() for option in options]
    if len(said) > 2 * sum(map(len, lower)):
        return ""
    named = [letter for letter, option in zip(letters, lower, strict=False) if option in said]
    return named[0] if len(named) == 1 else ""


def mme(text: str, label: str) -> float:
    """Mark yes or no as MME's `calculation.py`: by the first four letters; what is neither is wrong."""
    said = text.strip().lower()
    start = said if said in ("yes", "no") else said[:4]
    return float(("yes" if "yes" in start else "no" if "no" in start else "other") == label)


def gqa(text: str, answers: list[str]) -> float:
    """Mark equality of letters as GQA's `eval.py`, after the full stop and capitals that LLaVA takes off."""
    return float(text.rstrip(".").lower() in answers)


def textvqa(text: str, people: list[str]) -> float:
    """Mark as `m4c_evaluator.py`: of ten people min(others who said so / 3, 1), averaged over who is left out.

    Of fewer than ten it takes a third of those who are left, and of one equality, as `adafv.quality.metrics.soft_vqa`.
    """
    said, counted = textvqa_words(text), [textvqa_words(one) for one in people]
    same, others = counted.count(said), len(counted) - counted.count(said)
    if len(counted) == 1:
        return float(same)
    enough = (min(len(counted), _TEN) - 1) / 3
    return (same * min((same - 1) / enough, 1) + others * min(same / enough, 1)) / len(counted)


def anls(text: str, answers: list[str]) -> float:
    """Mark by normalised Levenshtein similarity, 0 below one half (Biten et al. 2019, arXiv 1907.00490)."""
    return max(_similar(" ".join(text.lower().split()), " ".join(one.lower().split())) for one in answers)


def relaxed(text: str, answers: list[str]) -> float:
    """Mark numbers right within 5 %, all else by equality (ChartQA, arXiv 2203.10244)."""
    return float(any(_near(text.strip(), one.strip()) for one in answers))


def _similar(said: str, right: str) -> float:
    longest = max(len(said), len(right))
    far = _distance(said, right) / longest if longest else 0.0
    return 1 - far if far < _ENOUGH else 0.0


def _distance(first: str, second: str) -> int:
    """Count the letters to insert, to delete or to change."""
    row = list(range(len(second) + 1))
    for number, letter in enumerate(first, start=1):
        before, row = row, [number]
        for place, other in enumerate(second):
            row.append(min(before[place] + (letter != other), before[place + 1] + 1, row[place] + 1))
    return row[-1]


def _near(said: str, right: str) -> bool:
    first, second = _number(said), _number(right)
    if first is None or not second:
        return said.lower() == right.lower()
    return abs(first - second) / abs(second) <= _NEAR


def _number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _label(metadata: Metadata) -> str | None:
    found = given(metadata)
    label = found[0].strip().lower() if found else ""
    return label if label in ("yes", "no") else None


MARKERS: dict[str, Marker] = {
    "choice": Marker(
        choice, lambda text, right: float(letter_said(text) == right.letter), lambda right: [right.letter]
    ),
    "mmbench": Marker(
        choice, lambda text, right: float(option_said(text, right.options or _LETTERS[:4]) == right.letter)
    ),
    "mme": Marker(_label, mme, lambda label: [label], by="category"),
    "gqa": Marker(lambda metadata: [one.lower() for one in given(metadata) or []] or None, gqa, list),
    "textvqa": Marker(given, textvqa, lambda people: [textvqa_words(one) for one in people]),
    "anls": Marker(given, anls),
    "relaxed": Marker(given, relaxed),
}
