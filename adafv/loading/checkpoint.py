"""Loads a LLaVA checkpoint with accelerate's device map, and refuses what would answer at random."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig

from adafv.demo import CHECKPOINT as DEMO_CHECKPOINT
from adafv.errors import CheckpointError, shown
from adafv.families import FAMILIES, family_of
from adafv.families.base import Family
from adafv.families.tower import choose_layers, chosen_layers, feature_layers, layers_that_run
from adafv.loading.devices import check_devices, on_cpu_only, place
from adafv.loading.faults import AGAIN, EXAMPLE, explained
from adafv.loading.files import check_config, check_files
from adafv.loading.hub import downloaded, hub_answers
from adafv.loading.numbers import check_numbers, smallest_count
from adafv.loading.original_format import check_not_original
from adafv.loading.preprocessing import check_image_processor, check_preprocessing
from adafv.loading.processing import load_processor
from adafv.loading.tokens import check_tokenizer, generation_config
from adafv.loading.weights import check_size, check_types, check_weights, unreported
from adafv.settings import DEMO, LoadSettings

_SMALL_PARAMETERS = 500_000_000  # in float32 still no more than 2 GB


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint, whoever loaded it.

    Args:
        name: as the user gave it.
        model: the Hugging Face model; layers behind the last one that LLaVA uses may be cut off its vision tower.
        processor: image processor, tokenizer and chat template.
        family: what is special about it.
    """

    name: str
    model: Any
    processor: Any
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
    """
    check_devices(settings)
    source, hub = _locate(settings)
    config = _config(source, settings, hub)
    if Path(source).is_dir():
        check_files(Path(source))
    cached_only = hub["local_files_only"]
    with explained(settings, "the processor (tokenizer.json and its like)", cached_only=cached_only):
        processor = load_processor(source, family_of(config), hub)
        check_image_processor(settings.model, processor, config)
        check_tokenizer(settings.model, processor.tokenizer, config)
    with explained(settings, "the model", cached_only=cached_only):
        model = _load_model(source, config, settings, hub, processor)
    return Checkpoint(settings.model, model, processor, family_of(config))


def read_config(settings: LoadSettings) -> Any:
    """The configuration alone, for which config.json is enough.

    Raises:
        CheckpointError: nothing there, not JSON, or not a LLaVA that is supported.
    """
    source, hub = _locate(settings)
    return _config(source, settings, hub)


def _locate(settings: LoadSettings) -> tuple[str, dict[str, Any]]:
    """A local folder or a hub id, and what every `from_pretrained` is told about the hub."""
    name = settings.model
    hub = {"revision": settings.revision, "local_files_only": True, "trust_remote_code": False}
    fix = "give a checkpoint folder, a hub id, or demo"
    try:
        folder = DEMO_CHECKPOINT if name == DEMO else Path(name).expanduser()
        if name and folder.is_dir():
            return str(folder), hub
        there = name and folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, no permission, no such home
        raise CheckpointError(f"model: {shown(name)} cannot be looked for: {error}", fix) from error
    if there:
        raise CheckpointError(f"model: {name} is a file, not a checkpoint folder", "give the folder that holds it")
    if name == DEMO or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise CheckpointError(f"model: there is no folder {shown(name)}", fix)
    return name, hub | {"local_files_only": settings.offline or not hub_answers()}


def _config(source: str, settings: LoadSettings, hub: dict[str, Any]) -> Any:
    """Checked as it stands in config.json first: transformers fills in the 7B's geometry for what is missing."""
    if Path(source).is_dir():
        check_config(Path(source))
    with explained(settings, "config.json", cached_only=hub["local_files_only"]):
        raw, _ = PretrainedConfig.get_config_dict(source, **hub)
        _check_raw(settings.model, raw)
        config = AutoConfig.from_pretrained(source, **hub)
    family_of(config).check(settings.model, config)
    check_numbers(settings.model, config)
    config._attn_implementation = settings.attention  # a file may name one that is not there
    try:
        feature_layers(config)
    except CheckpointError as error:
        raise CheckpointError(f"model: {settings.model}: config.json: {error.what}", error.fix) from error
    with explained(settings, "config.json"):
        _rehearse(config)
    return config


def _rehearse(config: Any) -> None:
    """Build the model with one layer in either tower and without memory: what is wrong with a config shows so."""
    short = copy.deepcopy(config)
    short.text_config.num_hidden_layers = short.vision_config.num_hidden_layers = 1
    with torch.device("meta"):
        AutoModelForImageTextToText.from_config(short, attn_implementation="eager")


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


def _load_model(source: str, config: Any, settings: LoadSettings, hub: dict[str, Any], processor: Any) -> Any:
    cut = copy.deepcopy(config)
    cut.vision_config.num_hidden_layers = layers_that_run(config)
    choose_layers(cut, -1 if isinstance(chosen_layers(config), int) else feature_layers(config))
    quantized = hasattr(config, "quantization_config")
    check_size(source, smallest_count(cut), quantized=quantized)
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(cut)
    check_preprocessing(settings.model, family_of(config).stages(empty, processor))
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    check_size(source, parameters, quantized=quantized)
    if not quantized and Path(source).is_dir():
        check_types(Path(source))
    dtype = _dtype(config, settings, parameters)
    with unreported():
        model, report = AutoModelForImageTextToText.from_pretrained(
            source,
            config=cut,
            dtype=dtype,
            device_map=place(empty, settings, dtype),
            offload_folder=settings.offload_folder,
            attn_implementation=settings.attention,
            quantization_config=_quantization(settings, dtype),
            weights_only=True,  # of pickled weights: no code
            ignore_mismatched_sizes=True,  # so that they are listed, and refused below with their names
            output_loading_info=True,
            **hub,
        )
    check_weights(settings.model, model, report, cut.vision_config.num_hidden_layers)
    if not quantized and not Path(source).is_dir():
        check_types(downloaded(source, hub))
    model.generation_config = generation_config(settings.model, model.generation_config, model.config.text_config)
    return model.eval()


def _dtype(config: Any, settings: LoadSettings, parameters: int) -> torch.dtype:
    """`auto` is the checkpoint's own, but float16 is slow or missing on CPUs."""
    own = getattr(config, "dtype", None) or getattr(config.text_config, "dtype", None) or torch.float32
    chosen: torch.dtype = own if settings.dtype == "auto" else getattr(torch, settings.dtype)
    if settings.dtype == "auto" and own is torch.float16 and on_cpu_only(settings):
        return torch.float32 if parameters < _SMALL_PARAMETERS else torch.bfloat16
    return chosen


def _quantization(settings: LoadSettings, dtype: torch.dtype) -> Any:
    """Only the language model: a quantized tower or projector would change which tokens are kept."""
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
