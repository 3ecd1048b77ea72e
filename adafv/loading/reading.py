"""Reads what a checkpoint is without its weights: configuration, processor, and the prompts that it makes."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, PretrainedConfig
from transformers.utils import cached_file

from adafv.chat_templates import ChatTemplate, chosen, documented
from adafv.demo import CHECKPOINT as DEMO_CHECKPOINT
from adafv.errors import CheckpointError, InputError, shown
from adafv.families import FAMILIES, family_of
from adafv.families.tower import choose_layers, chosen_layers, feature_layers
from adafv.loading.faults import AGAIN, EXAMPLE, explained, rehearsed
from adafv.loading.files import PROCESSORS, TOKENIZERS, check_config, check_texts
from adafv.loading.hub import hub_answers
from adafv.loading.numbers import check_numbers
from adafv.loading.original_format import check_not_original
from adafv.loading.preprocessing import check_image_processor, check_preprocessing
from adafv.loading.processing import load_processor
from adafv.loading.tokens import check_tokenizer, generation_config
from adafv.prompt import Prompter
from adafv.settings import DEMO, LoadSettings


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is.

    Args:
        place: a folder, or a hub id.
        hub: what every `from_pretrained` is told about the hub.
        settings: what was asked for.
    """

    place: str
    hub: dict[str, Any]
    settings: LoadSettings

    @property
    def folder(self) -> Path | None:
        """The folder; `None` on the hub."""
        return Path(self.place) if Path(self.place).is_dir() else None

    @property
    def cached_only(self) -> bool:
        """Whether nothing may be, or can be, fetched."""
        return bool(self.hub["local_files_only"])


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


def locate(settings: LoadSettings) -> Source:
    """Find the folder or hub id that a user gave.

    Raises:
        CheckpointError: nothing there.
    """
    name = settings.model
    hub = {"revision": settings.revision, "local_files_only": True, "trust_remote_code": False}
    fix = "give a checkpoint folder, a hub id, or demo"
    try:
        folder = DEMO_CHECKPOINT if name == DEMO else Path(name).expanduser()
        if name and folder.is_dir():
            return Source(str(folder), hub, settings)
        there = name and folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, no permission, no such home
        raise CheckpointError(f"model: {shown(name)} cannot be looked for: {error}", fix) from error
    if there:
        raise CheckpointError(f"model: {name} is a file, not a checkpoint folder", "give the folder that holds it")
    if name == DEMO or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise CheckpointError(f"model: there is no folder {shown(name)}", fix)
    return Source(name, hub | {"local_files_only": settings.offline or not hub_answers()}, settings)


def read_config(settings: LoadSettings) -> Any:
    """Read the configuration alone, for which config.json is enough.

    Raises:
        CheckpointError: nothing there, not JSON, or not a LLaVA that is supported.
    """
    return configuration(locate(settings))


def configuration(source: Source) -> Any:
    """Read the configuration, as it stands in config.json first: transformers fills in the 7B's for what is missing.

    Raises:
        CheckpointError: no config.json, not JSON, not a LLaVA that is supported, or numbers that no model has.
    """
    name = source.settings.model
    if source.folder is not None:
        check_config(source.folder)
    with explained(source.settings, "config.json", cached_only=source.cached_only):
        raw, _ = PretrainedConfig.get_config_dict(source.place, **source.hub)
        _check_raw(name, raw)
        config = AutoConfig.from_pretrained(source.place, **source.hub)
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
        processor = load_processor(source.place, family, source.hub)
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
        if not all(any(_is_there(source, name) for name in names) for names in (TOKENIZERS, PROCESSORS)):
            return None
        if _is_there(source, "generation_config.json"):
            own = GenerationConfig.from_pretrained(source.place, **source.hub)
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


def _is_there(source: Source, name: str) -> bool:
    if source.folder is not None:
        return (source.folder / name).is_file()
    hub = {key: value for key, value in source.hub.items() if key != "trust_remote_code"}
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(source.place, name, **hub, **quiet) is not None


def _skeleton(config: Any) -> Any:
    """Build the model with one layer in either tower and without memory: what is wrong with a config shows so."""
    short = copy.deepcopy(config)
    short.text_config.num_hidden_layers = short.vision_config.num_hidden_layers = 1
    feature = chosen_layers(config)
    choose_layers(short, 1 if isinstance(feature, int) else [1] * len(feature))
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(short, attn_implementation="eager")


def _check_raw(name: str, raw: dict[str, Any]) -> None:
    check_not_original(name, raw)
    if raw.get("model_type") not in FAMILIES:
        own = ", and needs code of its own, which adafv never runs" if "auto_map" in raw else ""
        raise CheckpointError(
            f"model: {name} is of the type {raw.get('model_type')!r}, not one of {', '.join(FAMILIES)}{own}", EXAMPLE
        )
    for part in ("vision_config", "text_config"):
        if not isinstance(raw.get(part), dict) or not raw[part]:
            raise CheckpointError(f"model: the config.json of {name} has no {part}", AGAIN)
