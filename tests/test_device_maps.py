"""Wherever the weights are held, the results are those of the plain load, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from adafv import DeviceError
from adafv.engine import Model
from adafv.families.hooks import execution_device
from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.devices import Placement, on_cpu_only, place
from adafv.settings import LoadSettings
from tests import tiny
from tests.conftest import noise
from tests.spoiling import pickled

PARTS = ("model.vision_tower", "model.multi_modal_projector", "model.language_model", "lm_head")
LAYER = "model.language_model.layers"
SECOND_ON_DISK = {"": "cpu", f"{LAYER}.1": "disk"}
OFFLOADED: dict[str, dict[str, Any]] = {
    "little memory": dict(device_map="auto", max_memory={"cpu": "300KB"}),
    "hardly any memory": dict(device_map="balanced", max_memory={"cpu": "100KB"}),
    "no memory": dict(device_map="sequential", max_memory={"cpu": 0}),
    "all on disk": dict(device_map={"": "disk"}),
    "vision on disk": dict(device_map={"": "cpu", "model.vision_tower": "disk"}),
    "language on disk": dict(device_map={"": "cpu", "model.language_model": "disk", "lm_head": "disk"}),
    "model on disk": dict(device_map={"model": "disk", "lm_head": "cpu"}),
    "one layer on disk": dict(device_map=SECOND_ON_DISK),
}
PLAIN: dict[str, dict[str, Any]] = {name: dict(device_map=name) for name in ("auto", "balanced", "sequential")} | {
    "map": dict(device_map={"": "cpu"}),
    "parts": dict(device_map=dict.fromkeys(PARTS, "cpu")),
}


@dataclass(frozen=True)
class Result:
    saliency: torch.Tensor
    packed: torch.Tensor
    logits: torch.Tensor
    text: str | None
    kept: object


@torch.inference_mode()
def result(folder: Path, image: Image.Image, **settings: Any) -> Result:
    """Every stage's output for a pruned prompt, asked twice, since hooks must leave everything as it was."""
    checkpoint = load_checkpoint(LoadSettings(str(folder), dtype="float32", **settings))
    stages = checkpoint.family.stages(checkpoint.model, checkpoint.processor)
    heard: list[torch.Tensor] = []
    checkpoint.model.lm_head.register_forward_hook(lambda _m, _a, output: heard.append(output[0, -1].float()))
    model = Model(checkpoint)
    for _ in range(2):
        heard.clear()
        encoding = stages.encode([stages.preprocess(image)])[0]
        answer = model.ask(image, "what color is the sign?", keep=5, max_new_tokens=4)
    return Result(encoding.saliency, encoding.packed, torch.stack(heard), answer.text, answer.tokens)


def same(one: Result, other: Result) -> None:
    for name in ("saliency", "packed", "logits"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.text, one.kept) == (other.text, other.kept)


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save: Callable[[Path], Path] = getattr(tiny, f"save_{request.param}")
    return save(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return noise(130, 70)


@pytest.fixture(scope="module")
def plain(folder: Path, picture: Image.Image) -> Result:
    return result(folder, picture, device_map="cpu")


@pytest.mark.parametrize("settings", PLAIN.values(), ids=PLAIN.keys())
def test_equal_results_in_memory(folder: Path, picture: Image.Image, plain: Result, settings: dict[str, Any]) -> None:
    same(result(folder, picture, **settings), plain)


@pytest.mark.parametrize("settings", OFFLOADED.values(), ids=OFFLOADED.keys())
def test_equal_results_offloaded(folder: Path, picture: Image.Image, plain: Result, settings: dict[str, Any]) -> None:
    same(result(folder, picture, **settings), plain)


def test_offloaded_means_not_in_memory(folder: Path) -> None:
    model = load_checkpoint(LoadSettings(str(folder), device_map={"": "disk"})).model
    held = [name for name, weight in model.named_parameters() if weight.device.type != "meta"]
    newline = ["model.image_newline"] if hasattr(model.model, "image_newline") else []
    assert held == [*newline, "model.language_model.norm.weight"]  # the norm for accelerate's sake
    for part in (model.model.vision_tower, model.model.multi_modal_projector, model.get_input_embeddings()):
        assert execution_device(part) == torch.device("cpu")


def empty(folder: Path, **text: Any) -> Any:
    """The model of a checkpoint without weights, its language model changed."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder)
    for name, value in text.items():
        setattr(config.text_config, name, value)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def placed(model: Any, **settings: Any) -> str | Placement:
    return place(model, LoadSettings("tiny", **settings), torch.float32)


def test_a_numbered_layer_is_not_taken_for_the_beginning_of_another(folder: Path) -> None:
    placement = placed(empty(folder, num_hidden_layers=12), device_map=SECOND_ON_DISK)
    assert isinstance(placement, dict)
    assert placement[f"{LAYER}.1"] == "disk"
    assert placement[f"{LAYER}.10"] == placement[f"{LAYER}.11"] == "cpu"
    assert not [key for key in placement for other in placement if key.startswith(f"{other}.")]


def test_newlines_stay_in_memory(folder: Path) -> None:
    model = empty(folder)
    for device_map in ("disk", {"": "disk"}, {"model": "disk", "lm_head": 0}, {"": "cpu", "lm_head": 0}):
        placement = placed(model, device_map=device_map)
        assert isinstance(placement, dict)
        assert placement.get("model.image_newline", "cpu") == "cpu"
        assert ("model.image_newline" in placement) == hasattr(model.model, "image_newline")
    assert placed(model, device_map={"": 0}) == {"": 0}
    assert placed(model, device_map="cuda:1") == "cuda:1"


@pytest.mark.parametrize(
    "device_map, what, fix",
    [
        ({"": "cpu", "model.visiontower": "disk"}, "no module 'model.visiontower'", "'model.vision_tower'"),
        (
            {"language_model.model.layers.0": "cpu"},
            "'language_model.model.layers.0'",
            "'model.language_model.layers.0'",
        ),
        ({"": "cpu", "lm_head.weight": "disk"}, "no module 'lm_head.weight'", "'lm_head'"),
        ({"model.vision_tower": "cpu"}, "multi_modal_projector.linear_1.weight", 'add its module, or ""'),
        ({"": "cpu", f"{LAYER}.0.mlp": "disk"}, f"{LAYER}.0 is spread", f"one device for '{LAYER}.0'"),
        ({"": "cpu", f"{LAYER}.0": "cuda:7"}, "cuda:7", "cpu"),
        ({"": None}, "None is no device", "cpu"),
        ({"": "gpu"}, "'gpu' is no device", "cpu"),
    ],
)
def test_maps_that_cannot_be(llava_folder: Path, device_map: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(DeviceError) as caught:
        load_checkpoint(LoadSettings(str(llava_folder), device_map=device_map))
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.skipif(torch.accelerator.is_available(), reason="asks for what is not there")
@pytest.mark.parametrize("settings", [dict(device_map="cuda"), dict(device_map="cuda:1"), dict(max_memory={0: "1GB"})])
def test_devices_that_are_not_there(llava_folder: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="there is no cuda device") as caught:
        load_checkpoint(LoadSettings(str(llava_folder), **settings))
    assert caught.value.fix == "use cpu"


def test_a_size_that_is_none(llava_folder: Path) -> None:
    with pytest.raises(DeviceError, match="max_memory") as caught:
        load_checkpoint(LoadSettings(str(llava_folder), max_memory={"cpu": "much"}))
    assert "20GiB" in caught.value.fix


def test_pickled_weights_are_offloaded_into_a_folder(llava_folder: Path, tmp_path: Path, picture: Image.Image) -> None:
    folder = pickled(llava_folder, tmp_path / "pickled")
    with pytest.raises(DeviceError) as caught:
        load_checkpoint(LoadSettings(str(folder), device_map={"": "disk"}))
    assert "--offload-folder" in caught.value.fix
    plain = result(llava_folder, picture, device_map="cpu")
    offloaded = result(folder, picture, device_map={"": "disk"}, offload_folder=str(tmp_path / "weights"))
    # Written anew, weights lie elsewhere in memory pages, and kernels may add in another order.
    torch.testing.assert_close(offloaded.logits, plain.logits, rtol=1e-5, atol=1e-5)
    assert (offloaded.text, offloaded.kept) == (plain.text, plain.kept)


@pytest.mark.parametrize(
    "settings, expected",
    [
        (dict(device_map="cpu"), True),
        (dict(device_map={"": "disk"}), True),
        (dict(device_map="auto", max_memory={"cpu": "1GB"}), True),
        (dict(device_map="cuda:0"), False),
        (dict(device_map="auto"), False),
        (dict(device_map={"": "cpu", "lm_head": 0}), False),
    ],
)
def test_what_computes_on_the_cpu(settings: Any, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adafv.loading.devices.accelerator", lambda: "cuda")
    assert on_cpu_only(LoadSettings(**settings)) is expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "settings",
    [
        dict(device_map="cuda:0"),
        dict(device_map="auto"),
        dict(device_map={"": 0, "model.vision_tower": "cpu"}),
        dict(device_map={"": 0, "model": "cpu"}),
        dict(device_map={"": "disk", "lm_head": 0}),
    ],
)
def test_close_results_on_a_gpu(folder: Path, picture: Image.Image, plain: Result, settings: dict[str, Any]) -> None:
    found = result(folder, picture, **settings)
    for name in ("saliency", "packed", "logits"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(plain, name), rtol=1e-3, atol=1e-3)
