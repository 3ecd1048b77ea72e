"""`--quantize` touches the language model alone, so that the same visual tokens are kept."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from adafv import DeviceError
from adafv.engine import Model
from adafv.loading.checkpoint import Checkpoint, load_checkpoint
from adafv.settings import LoadSettings
from tests import tiny
from tests.conftest import noise

installed = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
QUESTION = "is there a red car?"


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With widths that bitsandbytes takes: 64 values share one scale."""
    save: Callable[..., Path] = getattr(tiny, f"save_{request.param}")
    text = tiny.text_config(len(tiny.tokenizer()), hidden_size=64, intermediate_size=128)
    return save(tmp_path_factory.mktemp(request.param), text_config=text)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return noise(130, 70)


def load(folder: Path, quantize: str | None) -> Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_checkpoint(LoadSettings(str(folder), device_map="cpu", dtype="bfloat16", quantize=quantize))


@torch.inference_mode()
def selected(checkpoint: Checkpoint, picture: Image.Image) -> tuple[torch.Tensor, ...]:
    """Saliency, packed tokens, embeddings of text and of the chosen tokens, and the first logits."""
    heard: list[torch.Tensor] = []
    language: Any = checkpoint.model.model.language_model

    def hear(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        heard.append(kwargs["inputs_embeds"])

    hooks = [
        language.register_forward_pre_hook(hear, with_kwargs=True),
        checkpoint.model.lm_head.register_forward_hook(lambda _m, _a, output: heard.append(output[:, -1])),
    ]
    stages = checkpoint.family.stages(checkpoint.model, checkpoint.processor)
    encoding = stages.encode([stages.preprocess(picture)])[0]
    Model(checkpoint).ask(picture, QUESTION, keep=6, max_new_tokens=1)
    for hook in hooks:
        hook.remove()
    return (encoding.saliency, encoding.packed, *heard)


@installed
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_the_selection_does_not_change(folder: Path, picture: Image.Image, quantize: str) -> None:
    plain, quantized = load(folder, None), load(folder, quantize)
    *chosen, logits = selected(plain, picture)
    *chosen_too, logits_too = selected(quantized, picture)
    for one, other in zip(chosen, chosen_too, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(logits, logits_too)
    assert torch.corrcoef(torch.cat([logits, logits_too]).float())[0, 1] > 0.9


@installed
@pytest.mark.parametrize("quantize, kind", [("int8", "Linear8bitLt"), ("int4", "Linear4bit")])
def test_only_the_language_model_is_quantized(folder: Path, quantize: str, kind: str) -> None:
    model = load(folder, quantize).model
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inside = {name for name in kinds if name.startswith("model.language_model.")}
    assert {name for name, found in kinds.items() if found == kind} == inside != set()
    assert len(inside) == 2 * 7
    assert {kinds[name] for name in set(kinds) - inside} == {"Linear"}
    assert model.lm_head.weight.dtype is torch.bfloat16


@installed
def test_quantized_weights_are_not_offloaded(folder: Path) -> None:
    with pytest.raises(DeviceError, match="int8") as caught:
        load_checkpoint(LoadSettings(str(folder), quantize="int8", device_map={"": "cpu", "lm_head": "disk"}))
    assert "--device-map cpu" in caught.value.fix


def test_without_the_package(llava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_8bit.is_bitsandbytes_available", lambda: False)
    monkeypatch.setattr(
        "transformers.utils.quantization_config.is_bitsandbytes_available", lambda: False, raising=False
    )
    with pytest.raises(DeviceError, match="--quantize") as caught:
        load_checkpoint(LoadSettings(str(llava_folder), quantize="int8", device_map="cpu"))
    assert "pip install -U bitsandbytes" in caught.value.fix
