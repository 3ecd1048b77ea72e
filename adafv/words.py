"""Words that people can read, made of the pieces that a tokenizer cuts a text into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BEFORE = 12  # tokens in front of one that are decoded with it: what it reads like depends on them
_BROKEN = "\ufffd"  # what the first bytes of a character read like
_UNSPACED = 0x2E80  # from here on, scripts do not set words apart: each token stands alone


def words_of(tokenizer: Any, ids: Sequence[int]) -> tuple[list[str], list[int]]:
    """Join tokens to words, and tell for each token the number of the word that it belongs to.

    Punctuation stands alone. A space belongs to the word behind it; line ends are words, written with escapes.

    Args:
        tokenizer: a Hugging Face tokenizer.
        ids: of the tokens.
    """
    words: list[str] = []
    owners: list[int] = []
    last, unfinished = "", False
    for number in range(len(ids)):
        piece = _piece(tokenizer, ids, number)
        if not unfinished and not _continues(last, piece):
            words.append("")
        owners.append(len(words) - 1)
        words[-1] += piece.rstrip(_BROKEN)
        unfinished = piece.endswith(_BROKEN)
        last = words[-1][-1:] or last
    return [word.strip() or repr(word)[1:-1] for word in words], owners


def _piece(tokenizer: Any, ids: Sequence[int], number: int) -> str:
    """Read what a token adds to the text in front of it."""
    first = max(0, number - _BEFORE)
    before, text = (
        str(tokenizer.decode(ids[first:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for end in (number, number + 1)
    )
    return text[len(before.rstrip(_BROKEN)) :]


def _continues(last: str, piece: str) -> bool:
    """Tell whether a piece goes on with the word that ends in the character `last`."""
    if not last or not piece or last == " ":
        return bool(last)  # at the start there is no word to go on with
    return last.isalnum() and piece[0].isalnum() and max(ord(last), ord(piece[0])) < _UNSPACED
