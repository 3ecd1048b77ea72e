"""Wraps a model that the caller has loaded: nothing is copied, and the model stays as it is."""

from __future__ import annotations

import copy
from typing import Any

from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from adafv.engine import Model, compiling
from adafv.errors import CheckpointError
from adafv.families import FAMILIES
from adafv.families.base import Family
from adafv.loading.checkpoint import Checkpoint
from adafv.loading.preprocessing import check_image_processor, check_preprocessing
from adafv.loading.reading import tried_prompter
from adafv.loading.tokens import check_tokenizer, generation_config


def wrap(model: Any, processor: Any, *, compile: bool = False) -> Model:
    """Answer with a model that is loaded already.

    The weights are shared, wherever accelerate holds them, and what the caller does with the model otherwise goes on
    as before. Its sampling settings are not used: `RunSettings` say how. Vision layers that LLaVA does not use are
    left out of each forward, not out of the model. Move the model before it is wrapped, not afterwards.

    Args:
        model: a `LlavaForConditionalGeneration` or its kin of transformers, in evaluation mode.
        processor: its processor, with tokenizer and image processor.
        compile: decode in compiled steps where that can be done, as `LoadSettings.compile`.

    Raises:
        CheckpointError: a model of another class or in training mode, a tower that saliency is not defined for, or a
            processor that is not the model's.
    """
    family, name = checked(model), name_of(model)
    stages = family.stages(model, processor)
    # `generate` reads the defaults of the model that it is called on: this one has its own, and all else in common.
    twin = copy.copy(model)
    try:
        check_image_processor(name, processor, model.config)
        check_tokenizer(name, processor.tokenizer, model.config)
        check_preprocessing(name, stages)
        prompter = tried_prompter(name, processor, model.config)
    except CheckpointError as error:
        raise CheckpointError(error.what, "give the processor that was saved with this model") from error
    own, text_config = model.generation_config, model.config.text_config
    twin.generation_config = generation_config(name, own, text_config, prompter.turn_end)
    wrapped = Model(Checkpoint(name, twin, processor, prompter, family))
    return compiling(wrapped) if compile else wrapped


def checked(model: Any) -> Family:
    """Find the family of a loaded model.

    Raises:
        CheckpointError: one of another class or in training mode, or a tower that saliency is not defined for.
    """
    config: Any = getattr(model, "config", None)
    family = FAMILIES.get(getattr(config, "model_type", ""))
    if family is None or not isinstance(model, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), ())):
        known = ", ".join(one.name for one in FAMILIES.values())
        raise CheckpointError(
            f"model: a {type(model).__name__} is not the whole model of {known}",
            "load it with AutoModelForImageTextToText; of a PeftModel give get_base_model()",
        )
    family.check(name_of(model), config)
    if model.training:
        raise CheckpointError(f"model: {name_of(model)} is in training mode", "call its eval() first")
    return family


def name_of(model: Any) -> str:
    """Name a loaded model: by where it was loaded from, or by its class."""
    return model.name_or_path or type(model).__name__
