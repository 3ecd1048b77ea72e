"""The answer normalisation of the VQA evaluation (Antol et al. 2015; Goyal et al. 2017).

Its rules, in their order: marks that stand beside a space vanish and the others become a space, unless there is a
comma between digits, then all vanish; full stops vanish except before a digit; everything in lower case; numbers up to
ten as digits, and `none` as 0; no articles; contractions with their apostrophes.

This is for `exact` and for agreement; the metrics `vqa` and `textvqa` follow the published evaluations to the letter
(`adafv.quality.official`). Where this differs from those:
    - Both sides are always normalised. There, human answers are not where all of them are equal, and of the others
      numbers, articles and contractions stay as they are.
    - An answer of nothing but articles keeps them: "A" may be a choice.
    - Slips in its table of contractions that no pair of normalised answers can show are not repeated, and curly
      apostrophes are straight ones.
"""

from __future__ import annotations

import re

MARKS = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = frozenset(("a", "an", "the"))
_FULL_STOP = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"

# Without those that are words of their own when the apostrophe is left out: we'll, she'd, it's, I'll, ...
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't
not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_WITH_APOSTROPHE = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}


def normalise(answer: str) -> str:
    """Normalise an answer as it is compared: `The two dogs.` is `2 dogs`."""
    text = without_marks(" ".join(answer.replace(_CURLY, "'").split()))
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    words = [word for word in words if word not in _ARTICLES] or words
    return " ".join(_WITH_APOSTROPHE.get(word.replace("'", ""), word) for word in words)


def without_marks(text: str) -> str:
    """Take out punctuation as VQA's evaluation does: a mark beside a space vanishes, another one becomes a space."""
    together = _COMMA_IN_NUMBER.search(text) is not None
    found = text
    for mark in MARKS:
        vanishes = together or f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if vanishes else " ")
    return _FULL_STOP.sub("", found)
