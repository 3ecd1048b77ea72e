"""Loads a LLaVA checkpoint with accelerate's device map, and refuses what would answer at random."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForImageTextToText

from adafv.demo import BUNDLED
from adafv.errors import CheckpointError
from adafv.families import family_of
from adafv.families.base import Family
from adafv.families.tower import choose_layers, chosen_layers, feature_layers, layers_that_run
from adafv.headroom import available
from adafv.loading.devices import check_devices, on_cpu_only, place
from adafv.loading.faults import explained
from adafv.loading.files import check_files, weight_files
from adafv.loading.front import as_front, check_served, without_layers
from adafv.loading.hub import downloaded
from adafv.loading.merging import OTHER_BASE, check_in_memory, check_mergeable, merge
from adafv.loading.numbers import smallest_count
from adafv.loading.original import Original
from adafv.loading.rates import multiplies_halves
from adafv.loading.reading import configuration, own_generation_config, prompting
from adafv.loading.source import Source, locate
from adafv.loading.tensors import Held, hold
from adafv.loading.tokens import generation_config
from adafv.loading.weights import check_names, check_size, check_types, check_weights, unreported
from adafv.prompt import Prompter
from adafv.settings import LoadSettings

_SMALL_PARAMETERS = 500_000_000  # in float32 still no more than 2 GB
_SHARE = 0.7  # of the memory that is free may be weights


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
        """Whether this is one of the bundled demos."""
        return self.name in BUNDLED


def load_checkpoint(settings: LoadSettings) -> Checkpoint:
    """Load configuration, processor and weights.

    Raises:
        CheckpointError: nothing there, not a LLaVA, broken files, or any tensor missing, misshapen or not finite.
        DeviceError: a device, kernel or package that is not there, or a device map that does not fit.
        InputError: a chosen chat template that cannot be used.
    """
    check_devices(settings)
    return read_whole(locate(settings), settings)


def read_whole(source: Source, settings: LoadSettings, *, cut: bool = True) -> Checkpoint:
    """Load what was located.

    Args:
        source: as `locate` found it.
        settings: as the user gave them.
        cut: leave out layers of the vision tower behind the last one that LLaVA uses.

    Raises:
        CheckpointError, DeviceError, InputError: as `load_checkpoint`.
    """
    if source.adapter is not None:
        check_mergeable(settings.model, settings.quantize)
    config = configuration(source)
    if source.folder is not None:
        check_files(source.folder, processor=source.original is None)
    asking = prompting(source, config)
    with explained(source.settings, "the model", cached_only=source.cached_only):
        model = _load_model(source, config, cut=cut)
        if source.original is not None:
            model.generation_config = own_generation_config(source) or model.generation_config
    if source.adapter is not None:
        with explained(settings, "the adapter", cached_only=source.cached_only):
            merge(source.adapter, model, whole=source.original is None)
    own = generation_config(settings.model, model.generation_config, config.text_config, asking.prompter.turn_end)
    model.generation_config = own
    return Checkpoint(settings.model, model, asking.processor, asking.prompter, family_of(config))


def _load_model(source: Source, config: Any, *, cut: bool) -> Any:
    settings, cut_config = source.settings, copy.deepcopy(config)
    if cut:
        cut_config.vision_config.num_hidden_layers = layers_that_run(config)
        choose_layers(cut_config, -1 if isinstance(chosen_layers(config), int) else feature_layers(config))
    quantized = hasattr(config, "quantization_config")
    tensors = None if source.original is None else original_tensors(source)
    size, unit = _size(source.folder, tensors)
    with _of_its_base(source):
        check_size(settings.model, size, smallest_count(cut_config), quantized=quantized, unit=unit)
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(cut_config)
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    if tensors is not None:
        with _of_its_base(source):
            check_names(settings.model, empty, tensors)
    else:
        check_size(settings.model, size, parameters, quantized=quantized)
        if source.folder is not None and not quantized:
            _check_all_types(source.folder)
    dtype, whole = _dtype(config, settings, parameters), cut_config
    if settings.server is not None:
        check_served(source)
        cut_config = without_layers(settings.model, cut_config)
        with torch.device("meta"):
            empty = AutoModelForImageTextToText.from_config(cut_config)
    placement = place(empty, settings, dtype)
    if source.adapter is not None:
        check_in_memory(source.adapter.name, placement)
    model, report = _filled(type(empty), source, cut_config, dtype, placement, tensors)
    if settings.server is not None:
        as_front(model, report, whole)
    check_weights(settings.model, model, report, cut_config.vision_config.num_hidden_layers)
    if source.folder is None and tensors is None and not quantized:
        _check_all_types(downloaded(source.place, source.hub))
    return model.eval()


def _filled(
    kind: Any, source: Source, config: Any, dtype: torch.dtype, placement: Any, tensors: Mapping[str, Held] | None
) -> tuple[Any, dict[str, Any]]:
    """Make a model with its weights, of `tensors` or else of the checkpoint's files, and tell what was (not) found.

    Not by the Auto class, which looks on the hub for adapters wherever peft is installed, also when offline.
    """
    settings, weights = source.settings, source.hub if tensors is None else {"state_dict": tensors}
    with unreported():
        model, report = kind.from_pretrained(
            source.place if tensors is None else None,
            config=config,
            dtype=dtype,
            device_map=placement,
            offload_folder=settings.offload_folder,
            attn_implementation=settings.attention,
            quantization_config=_quantization(settings, dtype),
            weights_only=True,  # of pickled weights: no code
            ignore_mismatched_sizes=True,  # so that they are listed, and refused below with their names
            output_loading_info=True,
            **weights,
        )
    return model, report


@contextmanager
def _of_its_base(source: Source) -> Iterator[None]:
    """Blame what does not fit on the base, where it is one that was put under an adapter's own config.json."""
    try:
        yield
    except CheckpointError as error:
        if source.adapter is None or source.original is None:
            raise
        what = f"model: the adapter {source.adapter.name} was trained on another base than this"
        raise CheckpointError(f"{what}: {error.what.removeprefix('model: ')}", OTHER_BASE) from error


def original_tensors(source: Source) -> dict[str, Held]:
    """List the tensors of a checkpoint in LLaVA's original format, with those of an adapter that replace some.

    Raises:
        CheckpointError: no vision tower, or weights that are no floating-point numbers.
    """
    original, adapter = cast(Original, source.original), source.adapter
    tensors = original.tensors({} if adapter is None else adapter.whole)
    check_types(original.name, tensors)
    return tensors


def _size(folder: Path | None, tensors: Mapping[str, Held] | None) -> tuple[float, str]:
    """Count what weights there are: numbers or bytes, and of what has not been fetched any number."""
    if tensors is not None:
        return sum(prod(held.shape) for held in tensors.values()), "numbers"
    return inf if folder is None else sum(path.stat().st_size for path in weight_files(folder)), "bytes"


def _check_all_types(folder: Path) -> None:
    for path in weight_files(folder):
        check_types(path, hold(path))


def _dtype(config: Any, settings: LoadSettings, parameters: int) -> torch.dtype:
    """Choose the type of the weights: `auto` is the checkpoint's own, but float16 is slow or missing on CPUs.

    There it is float32 where that takes little memory, or where bfloat16 is slower by measure and memory suffices.
    """
    own = getattr(config, "dtype", None) or getattr(config.text_config, "dtype", None) or torch.float32
    chosen: torch.dtype = own if settings.dtype == "auto" else getattr(torch, settings.dtype)
    if settings.dtype == "auto" and own is torch.float16 and on_cpu_only(settings):
        if parameters < _SMALL_PARAMETERS:
            return torch.float32
        fits = 4 * parameters < _SHARE * (available() or 0)
        return torch.float32 if fits and not multiplies_halves() else torch.bfloat16
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
