"""Checks token ids: those that a tokenizer makes, and those that end an answer."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from adafv.errors import CheckpointError
from adafv.loading.faults import AGAIN


def check_tokenizer(name: str, tokenizer: Any, config: Any) -> None:
    """Hold a tokenizer's ids against the embedding table, which every one of them is looked up in.

    Args:
        name: of the checkpoint, as the user gave it.
        tokenizer: as transformers loaded it.
        config: of the checkpoint.

    Raises:
        CheckpointError: an id behind the end of the table, other than the image's and the padding's.
    """
    rows, never = config.text_config.vocab_size, {config.image_token_id, tokenizer.pad_token_id}
    token, largest = max(
        ((token, number) for token, number in tokenizer.get_vocab().items() if number not in never),
        key=lambda entry: entry[1],
        default=("", -1),
    )
    if largest >= rows:
        raise CheckpointError(
            f"model: {name}: the tokenizer's files give {token[:40]!r} the id {largest}, the model has {rows} tokens",
            f"tokenizer.json and config.json do not belong together: {AGAIN}",
        )


def generation_config(name: str, own: Any, text_config: Any, turn_end: int | None = None) -> GenerationConfig:
    """Take over the special tokens of a checkpoint alone: its sampling settings would override the user's.

    Args:
        name: of the checkpoint, as the user gave it.
        own: the checkpoint's generation config.
        text_config: has what that leaves out.
        turn_end: the token that ends the turns of its prompts; an answer ends there, too.

    Raises:
        CheckpointError: something that is no token id of the model.
    """
    ids: dict[str, Any] = {}
    for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(own, field, None)
        ids[field] = value if value is not None or field == "bos_token_id" else getattr(text_config, field, None)
        if field == "pad_token_id" and ids[field] == -1:  # how old files say that there is none
            ids[field] = None
        listed = ids[field] if isinstance(ids[field], list) and field == "eos_token_id" else [ids[field]]
        if ids[field] is not None and not all(_is_token(one, text_config.vocab_size) for one in listed):
            what = f"model: {name}: generation_config.json: {field} is {str(ids[field])[:60]}"
            raise CheckpointError(f"{what}, not a token id below {text_config.vocab_size}", AGAIN)
    eos = ids["eos_token_id"]
    listed = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if ids["pad_token_id"] is None and listed:
        ids["pad_token_id"] = listed[0]
    if turn_end is not None and turn_end not in listed:
        ids["eos_token_id"] = [*listed, turn_end]
    return GenerationConfig(**ids)


def _is_token(value: object, rows: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < rows
