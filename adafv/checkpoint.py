"""Loads a LLaVA checkpoint with accelerate's device map, and refuses what would answer at random."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from adafv import flops
from adafv.demo import CHECKPOINT as DEMO_CHECKPOINT
from adafv.devices import check_devices, on_cpu_only
from adafv.errors import CheckpointError
from adafv.faults import check_files, explained
from adafv.settings import DEMO, LoadSettings

FAMILIES = ("llava", "llava_next")
_SMALL_PARAMETERS = 500_000_000  # in float32 still no more than 2 GB


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Args:
        name: as the user gave it.
        model: the Hugging Face model, its vision tower cut behind the last layer that LLaVA uses.
        processor: image processor, tokenizer and chat template.
        family: `model_type` of the configuration.
        settings: what was asked for.
    """

    name: str
    model: Any
    processor: Any
    family: str
    settings: LoadSettings

    @property
    def is_demo(self) -> bool:
        """Whether this is the bundled demo."""
        return self.name == DEMO


def load_checkpoint(settings: LoadSettings) -> Checkpoint:
    """Load configuration, processor and weights.

    Raises:
        CheckpointError: nothing there, not a LLaVA, broken files, or any tensor missing or of another shape.
        DeviceError: a device or kernel that is not there.
    """
    check_devices(settings)
    source = _resolve(settings.model)
    common = {"revision": settings.revision, "local_files_only": settings.offline, "trust_remote_code": False}
    with explained(settings):
        config = AutoConfig.from_pretrained(source, **common)
        _check_family(settings.model, config)
        processor = AutoProcessor.from_pretrained(source, backend="pil", **common)
        model = _load_model(source, config, settings, common)
    return Checkpoint(settings.model, model, processor, config.model_type, settings)


def _resolve(name: str) -> str:
    if name == DEMO:
        return str(DEMO_CHECKPOINT)
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_files(folder)
        return str(folder)
    if folder.exists():
        raise CheckpointError(f"model: {name} is a file, not a checkpoint folder", "give the folder that holds it")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+|[\w-][\w.-]*", name):
        raise CheckpointError(f"model: there is no folder {name}", "give a checkpoint folder, a hub id, or demo")
    return name


def _check_family(name: str, config: Any) -> None:
    original = getattr(config, "mm_vision_tower", None) or "LlavaLlamaForCausalLM" in (config.architectures or ())
    if original:
        raise CheckpointError(
            f"model: {name} is in LLaVA's original format, which has no vision tower and no processor inside",
            "use its converted twin, for example llava-hf/llava-1.5-7b-hf",
        )
    if config.model_type not in FAMILIES:
        raise CheckpointError(
            f"model: {name} is of the type {config.model_type!r}, not one of {', '.join(FAMILIES)}",
            "use a LLaVA checkpoint, for example llava-hf/llava-1.5-7b-hf",
        )
    tower = config.vision_config.model_type
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    if tower != "clip_vision_model" or strategy != "default" or not isinstance(layer, int):
        raise CheckpointError(
            f"model: {name} has a {tower} tower (vision_feature_layer {layer}, strategy {strategy!r}); "
            "saliency is defined for one layer of a tower with a [CLS] token that is then dropped",
            "use a LLaVA checkpoint with a CLIP tower",
        )


def layers_that_run(config: Any) -> int:
    """Vision layers up to the one whose output LLaVA uses; later ones never run.

    `vision_feature_layer` counts hidden states: 0 is the embeddings', i the output of the i-th layer, -1 the last.
    """
    layers: int = config.vision_config.num_hidden_layers
    index: int = config.vision_feature_layer
    used = index if index >= 0 else layers + 1 + index
    if not 1 <= used <= layers:
        raise CheckpointError(
            f"vision_feature_layer {index} is not the output of one of the tower's {layers} layers",
            "the checkpoint's config.json is wrong: fetch it again",
        )
    return used


def _load_model(source: str, config: Any, settings: LoadSettings, common: dict[str, Any]) -> Any:
    cut = copy.deepcopy(config)
    cut.vision_config.num_hidden_layers = layers_that_run(config)
    cut.vision_feature_layer = -1
    model, report = AutoModelForImageTextToText.from_pretrained(
        source,
        config=cut,
        dtype=_dtype(config, settings),
        device_map=dict(settings.device_map) if not isinstance(settings.device_map, str) else settings.device_map,
        max_memory=dict(settings.max_memory) if settings.max_memory else None,
        offload_folder=settings.offload_folder,
        attn_implementation=settings.attention,
        quantization_config=_quantization(settings),
        ignore_mismatched_sizes=True,  # so that they are listed, and refused below with their names
        output_loading_info=True,
        **common,
    )
    _check_weights(settings.model, report, cut.vision_config.num_hidden_layers)
    model.generation_config = _generation_config(model)
    return model.eval()


def _check_weights(name: str, report: dict[str, Any], vision_layers: int) -> None:
    """Missing weights load as random ones without an error: the only sign is this report."""
    for kind in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key if isinstance(key, str) else key[0]) for key in report[kind])
        if keys:
            raise CheckpointError(
                f"model: {name}: {len(keys)} tensors are {kind.removesuffix('_keys')}, the first is {keys[0]}",
                "the files do not hold this model's weights: fetch the checkpoint again",
            )
    layer = re.compile(r"vision_tower\..*layers\.(\d+)\.")
    unused = (match and int(match[1]) >= vision_layers for match in map(layer.search, report["unexpected_keys"]))
    strangers = sorted(key for key, known in zip(report["unexpected_keys"], unused, strict=True) if not known)
    if strangers:
        raise CheckpointError(
            f"model: {name}: {len(strangers)} tensors belong to another model, the first is {strangers[0]}",
            "config.json and weights do not belong together: fetch the checkpoint again",
        )


def _dtype(config: Any, settings: LoadSettings) -> Any:
    """`auto` is the checkpoint's own, but float16 is slow or missing on CPUs."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    own = getattr(config, "dtype", None) or getattr(config.text_config, "dtype", None) or torch.float32
    if own is torch.float16 and on_cpu_only(settings):
        parameters = flops.prefill(flops.TextGeometry.from_config(config.text_config), 1) // 2
        return torch.float32 if parameters < _SMALL_PARAMETERS else torch.bfloat16
    return own


def _quantization(settings: LoadSettings) -> Any:
    """Only the language model: a quantised tower or projector would change which tokens are kept."""
    if settings.quantize is None:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_8bit=settings.quantize == "int8",
        load_in_4bit=settings.quantize == "int4",
        llm_int8_skip_modules=["vision_tower", "multi_modal_projector", "lm_head"],
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _generation_config(model: Any) -> GenerationConfig:
    """The checkpoint's special tokens alone: its sampling settings would override the user's."""
    own, text = model.generation_config, model.config.text_config
    eos = own.eos_token_id if own.eos_token_id is not None else text.eos_token_id
    pad = own.pad_token_id if own.pad_token_id is not None else text.pad_token_id
    first_eos = eos[0] if isinstance(eos, list) else eos
    return GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=eos, pad_token_id=pad if pad is not None else first_eos
    )
