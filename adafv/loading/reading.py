"""Reads what a checkpoint is without its weights: configuration, processor, and the prompts that it makes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from adafv.chat_templates import ChatTemplate, chosen, documented
from adafv.errors import InputError
from adafv.families import family_of
from adafv.families.tower import choose_layers, chosen_layers, feature_layers
from adafv.loading.faults import explained, rehearsed
from adafv.loading.files import PROCESSORS, TOKENIZERS, check_texts
from adafv.loading.hub import find
from adafv.loading.numbers import check_numbers
from adafv.loading.preprocessing import check_image_processor, check_preprocessing
from adafv.loading.processing import load_processor
from adafv.loading.source import Source, locate
from adafv.loading.tokens import check_tokenizer, generation_config
from adafv.prompt import Prompter
from adafv.settings import LoadSettings


@dataclass(frozen=True)
class Prompting:
    """How questions are put to a checkpoint.

    Args:
        processor: image processor, tokenizer and chat template.
        prompter: renders and tokenizes.
    """

    processor: Any
    prompter: Prompter


@dataclass(frozen=True)
class PromptDescription:
    """What a question is put in, and where its answer ends.

    Args:
        chat_template: its name: a documented one's, a file's path, or `checkpoint`.
        reason: why the checkpoint's own is not used; empty where it is, or where the user chose.
        example: a prompt.
        stops: tokens that an answer ends with.
        added_stop: the one of these that the checkpoint's files do not name, but turns of its prompts end with.
    """

    chat_template: str
    reason: str
    example: str
    stops: tuple[str, ...]
    added_stop: str | None


def read_config(settings: LoadSettings) -> Any:
    """Read the configuration alone, for which config.json is enough.

    Raises:
        CheckpointError: nothing there, not JSON, or not a LLaVA that is supported.
    """
    return configuration(locate(settings))


def configuration(source: Source) -> Any:
    """Read the configuration.

    Raises:
        CheckpointError: not a LLaVA that is supported, or numbers that no model has.
    """
    name = source.settings.model
    with explained(source.settings, "config.json", cached_only=source.cached_only):
        original = source.original
        config = AutoConfig.from_pretrained(source.place, **source.hub) if original is None else original.config
    family_of(config).check(name, config)
    check_numbers(name, config)
    config._attn_implementation = source.settings.attention  # a file may name one that is not there
    with rehearsed(name, "config.json"):
        feature_layers(config)
    with explained(source.settings, "config.json"):
        _skeleton(config)
    return config


def prompting(source: Source, config: Any) -> Prompting:
    """Load the processor, and try it and the chat template with a small image and a short question.

    Raises:
        CheckpointError: files that are broken or do not fit the configuration.
        InputError: a chosen chat template that cannot be used.
    """
    settings, family = source.settings, family_of(config)
    with explained(settings, "the processor (tokenizer.json and its like)", cached_only=source.cached_only):
        original = source.original
        processor = load_processor(source.place, family, source.hub) if original is None else original.processor
        check_image_processor(settings.model, processor, config)
        check_tokenizer(settings.model, processor.tokenizer, config)
        check_preprocessing(settings.model, family.stages(_skeleton(config), processor))
    own = chosen(settings.chat_template) if settings.chat_template is not None else None
    prompter = tried_prompter(settings.model, processor, config, own)
    return Prompting(processor, prompter)


def tried_prompter(name: str, processor: Any, config: Any, own: ChatTemplate | None = None) -> Prompter:
    """Make a checkpoint's prompter, and try it.

    Args:
        name: of the checkpoint, as the user gave it.
        processor: the checkpoint's.
        config: the checkpoint's.
        own: the user's chat template, instead of the checkpoint's.

    Raises:
        CheckpointError: a tokenizer or a chat template that cannot be used.
        InputError: the user's chat template cannot be used.
    """
    with rehearsed(name, "its tokenizer or chat template", passing=(InputError,)):
        prompter = Prompter(processor, config.image_token_id, documented(family_of(config).template(config)), own)
        processor.tokenizer.decode(prompter.example.after, skip_special_tokens=True)
    return prompter


def describe_prompts(source: Source, config: Any) -> PromptDescription | None:
    """Describe how questions are put; `None` for a checkpoint without tokenizer or image processor.

    Raises:
        CheckpointError, InputError: as `prompting`, or token ids that the model does not have.
    """
    if source.folder is not None:
        check_texts(source.folder)
    own = GenerationConfig.from_model_config(config)
    with explained(source.settings, "the processor or generation_config.json", cached_only=source.cached_only):
        parts = (TOKENIZERS,) if source.original is not None else (TOKENIZERS, PROCESSORS)
        if not all(any(find(source.place, name, source.hub) for name in names) for names in parts):
            return None
        own = own_generation_config(source) or own
    asking = prompting(source, config)
    prompter, words = asking.prompter, asking.processor.tokenizer
    stops = [
        generation_config(source.settings.model, own, config.text_config, turn_end).eos_token_id
        for turn_end in (None, prompter.turn_end)
    ]
    before, after = (stop if isinstance(stop, list) else [] if stop is None else [stop] for stop in stops)
    names = [str(words.convert_ids_to_tokens(token)) for token in after]
    return PromptDescription(
        chat_template=prompter.template.name,
        reason=prompter.template.reason,
        example=prompter.example.text,
        stops=tuple(names),
        added_stop=names[-1] if len(after) > len(before) else None,
    )


def own_generation_config(source: Source) -> GenerationConfig | None:
    """Read generation_config.json; `None` where there is none."""
    if find(source.place, "generation_config.json", source.hub) is None:
        return None
    return GenerationConfig.from_pretrained(source.place, **source.hub)


def _skeleton(config: Any) -> Any:
    """Build the model with one layer in either tower and without memory: what is wrong with a config shows so."""
    short = copy.deepcopy(config)
    short.text_config.num_hidden_layers = short.vision_config.num_hidden_layers = 1
    feature = chosen_layers(config)
    choose_layers(short, 1 if isinstance(feature, int) else [1] * len(feature))
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(short, attn_implementation="eager")
