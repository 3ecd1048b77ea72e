"""The words of the demo: what its tokenizer knows, and which of them name something in a picture."""

from __future__ import annotations

import re

from recipe.names import CLASSES, COLOURS, PLURALS

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
PAD, UNKNOWN, START, END, IMAGE = range(len(SPECIAL))
BACKGROUND = ("sky", "ground")
NUMBERS = ("1", "2", "3", "4")
_FUNCTION = """
    user assistant system : . , ? ! ' yes no a an the is are was be it this that these there here of in on at to
    from with and or not what which who where how many much do does did you i me we can could see find show shows
    tell say name give look have has any all some color colour colors object objects thing things item kind image
    picture photo scene drawing count number total left right above below side half compared relative than
    biggest largest bigger larger smallest big large small most biggest answer question using use single word
    words phrase only just please one two three four now so by for if
"""
# Words of the hard world: at the end, so that the ids of all others stay.
DIGITS = tuple("0123456789")
_LATER = (*DIGITS, "painted", "written", "read", "digit")
PLAIN_WORDS = (
    *SPECIAL,
    *CLASSES,
    *PLURALS,
    *COLOURS,
    *BACKGROUND,
    *NUMBERS,
    *dict.fromkeys(_FUNCTION.split()),
)
WORDS = (*PLAIN_WORDS, *(word for word in _LATER if word not in PLAIN_WORDS))
ID = {word: number for number, word in enumerate(WORDS)}
CLASS_IDS = tuple(ID[word] for word in CLASSES)
PLURAL_IDS = tuple(ID[word] for word in PLURALS)
COLOUR_IDS = tuple(ID[word] for word in COLOURS)
BACKGROUND_IDS = tuple(ID[word] for word in BACKGROUND)
CONTENT_IDS = frozenset(CLASS_IDS + PLURAL_IDS + COLOUR_IDS + BACKGROUND_IDS)
# Words that may follow the image in a prompt and name nothing in it. Answers are never embedded before they are given.
FUNCTION_IDS = tuple(n for n in range(len(WORDS)) if n not in CONTENT_IDS and n not in (PAD, START, END, IMAGE))

_PIECES = re.compile(r"\w+|[^\w\s]+")


def encode(text: str) -> list[int]:
    """Ids of a text without special words, exactly as the exported tokenizer splits it."""
    return [ID.get(piece, UNKNOWN) for piece in _PIECES.findall(text.lower())]
