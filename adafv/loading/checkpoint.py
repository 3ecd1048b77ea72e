"""Loads a LLaVA checkpoint with accelerate's device map, and refuses what would answer at random."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from adafv.families import family_of
from adafv.families.base import Family
from adafv.families.tower import choose_layers, chosen_layers, feature_layers, layers_that_run
from adafv.loading.devices import check_devices, on_cpu_only, place
from adafv.loading.faults import explained
from adafv.loading.files import check_files
from adafv.loading.hub import downloaded
from adafv.loading.numbers import smallest_count
from adafv.loading.reading import Source, configuration, locate, prompting
from adafv.loading.tokens import generation_config
from adafv.loading.weights import check_size, check_types, check_weights, unreported
from adafv.prompt import Prompter
from adafv.settings import DEMO, LoadSettings

_SMALL_PARAMETERS = 500_000_000  # in float32 still no more than 2 GB


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint, whoever loaded it.

    Args:
        name: as the user gave it.
        model: the Hugging Face model; layers behind the last one that LLaVA uses may be cut off its vision tower.
        processor: image processor, tokenizer and chat template.
        prompter: renders and tokenizes questions.
        family: what is special about it.
    """

    name: str
    model: Any
    processor: Any
    prompter: Prompter
    family: Family

    @property
    def is_demo(self) -> bool:
        """Whether this is the bundled demo."""
        return self.name == DEMO


def load_checkpoint(settings: LoadSettings) -> Checkpoint:
    """Load configuration, processor and weights.

    Raises:
        CheckpointError: nothing there, not a LLaVA, broken files, or any tensor missing, misshapen or not finite.
        DeviceError: a device, kernel or package that is not there, or a device map that does not fit.
        InputError: a chosen chat template that cannot be used.
    """
    check_devices(settings)
    source = locate(settings)
    config = configuration(source)
    if source.folder is not None:
        check_files(source.folder)
    asking = prompting(source, config)
    with explained(settings, "the model", cached_only=source.cached_only):
        model = _load_model(source, config)
    own = generation_config(settings.model, model.generation_config, config.text_config, asking.prompter.turn_end)
    model.generation_config = own
    return Checkpoint(settings.model, model, asking.processor, asking.prompter, family_of(config))


def _load_model(source: Source, config: Any) -> Any:
    settings, folder = source.settings, source.folder
    cut = copy.deepcopy(config)
    cut.vision_config.num_hidden_layers = layers_that_run(config)
    choose_layers(cut, -1 if isinstance(chosen_layers(config), int) else feature_layers(config))
    quantized = hasattr(config, "quantization_config")
    if folder is not None:
        check_size(folder, smallest_count(cut), quantized=quantized)
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(cut)
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    if folder is not None:
        check_size(folder, parameters, quantized=quantized)
        if not quantized:
            check_types(folder)
    dtype = _dtype(config, settings, parameters)
    with unreported():
        model, report = AutoModelForImageTextToText.from_pretrained(
            source.place,
            config=cut,
            dtype=dtype,
            device_map=place(empty, settings, dtype),
            offload_folder=settings.offload_folder,
            attn_implementation=settings.attention,
            quantization_config=_quantization(settings, dtype),
            weights_only=True,  # of pickled weights: no code
            ignore_mismatched_sizes=True,  # so that they are listed, and refused below with their names
            output_loading_info=True,
            **source.hub,
        )
    check_weights(settings.model, model, report, cut.vision_config.num_hidden_layers)
    if folder is None and not quantized:
        check_types(downloaded(source.place, source.hub))
    return model.eval()


def _dtype(config: Any, settings: LoadSettings, parameters: int) -> torch.dtype:
    """Choose the type of the weights: `auto` is the checkpoint's own, but float16 is slow or missing on CPUs."""
    own = getattr(config, "dtype", None) or getattr(config.text_config, "dtype", None) or torch.float32
    chosen: torch.dtype = own if settings.dtype == "auto" else getattr(torch, settings.dtype)
    if settings.dtype == "auto" and own is torch.float16 and on_cpu_only(settings):
        return torch.float32 if parameters < _SMALL_PARAMETERS else torch.bfloat16
    return chosen


def _quantization(settings: LoadSettings, dtype: torch.dtype) -> Any:
    """Quantize only the language model: a quantized tower or projector would change which tokens are kept."""
    if settings.quantize is None:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_8bit=settings.quantize == "int8",
        load_in_4bit=settings.quantize == "int4",
        llm_int8_skip_modules=["model.vision_tower", "model.multi_modal_projector", "lm_head"],  # from the root
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
    )
