"""The published evaluations of VQA and TextVQA, to the letter: their slips are part of what figures were made with.

VQA (`vqaEval.py` of Antol et al. 2015 and Goyal et al. 2017): the answer goes through punctuation, numbers, articles
and contractions; people's answers through punctuation alone, and only where they are not all equal. An answer of
nothing but an article is empty, curly apostrophes stay, "im" is no contraction of "i'm" (the table has it with a
capital), and "somebody'd" becomes "somebodyd". Capitals of people, which its data do not have, are not held against
anybody.

TextVQA (`m4c_evaluator.py`, from Pythia): both sides go through all of it, after "'s" was split off and commas and
question marks were dropped.
"""

from __future__ import annotations

from adafv.quality.normalisation import NUMBERS, without_marks

_ARTICLES = ("a", "an", "the")
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _table() -> dict[str, str]:
    """List contractions with one of their apostrophes left out, which is what the published table has."""
    found = {"somebody'd": "somebodyd"}
    for word in _CONTRACTIONS.split():
        found |= {word[:place] + word[place + 1 :]: word for place, letter in enumerate(word) if letter == "'"}
    return found


_WITH_APOSTROPHE = _table()


def vqa_words(answer: str) -> str:
    """Process an answer as VQA's evaluation does the model's."""
    return _words(without_marks(answer.replace("\n", " ").replace("\t", " ").strip()))


def vqa_sides(answer: str, people: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Process both sides of a comparison as VQA's evaluation does."""
    lower = tuple(one.lower() for one in people)
    return vqa_words(answer), tuple(map(without_marks, lower)) if len(set(people)) > 1 else lower


def textvqa_words(answer: str) -> str:
    """Process an answer as TextVQA's evaluation does, and as LLaVA's files for VQAv2's and VizWiz's servers have it."""
    split = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _words(without_marks(split.replace("\n", " ").replace("\t", " ").strip()))


def _words(text: str) -> str:
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words if word not in _ARTICLES)
