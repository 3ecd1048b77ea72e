"""LoRA adapters, PEFT's and those of LLaVA's own trainer: merged as peft merges them, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

import adafv
from adafv import CheckpointError, DeviceError, InputError
from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.conversion import convert
from adafv.loading.reading import describe_prompts, read_config
from adafv.loading.source import locate
from adafv.settings import LoadSettings
from tests import originals, tiny
from tests.cli_fakes import adafv as command
from tests.conftest import noise
from tests.originals import RAW

peft = pytest.importorskip("peft")
safetensors_torch = pytest.importorskip("safetensors.torch")

LANGUAGE = r".*language_model.*\.(q_proj|v_proj|down_proj)"
KINDS: dict[str, dict[str, Any]] = {
    "both towers": {"target_modules": ["q_proj", "v_proj", "fc1"]},
    "language model": {"target_modules": LANGUAGE},
    "all that is linear": {"target_modules": "all-linear"},
    "rank-stabilised": {"target_modules": LANGUAGE, "use_rslora": True},
    "DoRA": {"target_modules": LANGUAGE, "use_dora": True},
    "patterns": {"target_modules": LANGUAGE, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\..*": 5}},
    "some layers": {"target_modules": ["down_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "whole modules": {"target_modules": LANGUAGE, "modules_to_save": ["multi_modal_projector"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
}


def trained(base: Path, folder: Path, seed: int = 1, **settings: Any) -> Path:
    """An adapter as PEFT saves it, every tensor of it random."""
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, **settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    wrapped.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, folder: Path) -> dict[str, Tensor]:
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    return dict(peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload().named_parameters())


def load(folder: Path, **settings: Any) -> Any:
    return load_checkpoint(LoadSettings(str(folder), device_map="cpu", **settings)).model


@pytest.mark.parametrize("family, kind", [*(("llava", kind) for kind in KINDS), ("llava_next", "both towers")])
def test_merged_as_peft_merges(kind: str, family: str, llava_folder: Path, tmp_path: Path) -> None:
    base = llava_folder if family == "llava" else tiny.save(family, tmp_path / "base")
    folder = trained(base, tmp_path / "adapter", **KINDS[kind])
    model, wanted = load(folder), merged_by_peft(base, folder)
    untouched = dict(load(base).named_parameters())
    found = dict(model.named_parameters())
    assert found.keys() == untouched.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)
    assert any(not torch.equal(tensor, untouched[name]) for name, tensor in found.items())
    assert not any("lora" in name or "peft" in type(module).__module__ for name, module in model.named_modules())
    assert not hasattr(model, "peft_config")


# Adapters of LLaVA's own trainer.


def save_language_model(folder: Path, raw: dict[str, Any] = RAW["v1.5-7b"], seed: int = 3) -> dict[str, Tensor]:
    """Vicuna: what LLaVA-1.5 was trained from."""
    own = {key: value for key, value in raw.items() if "mm_" not in key and "image" not in key}
    originals.save_files(folder, "v1.5-7b", own | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    tensors: dict[str, Tensor] = originals.random(originals.text_tensors(raw), seed)
    originals.save_shards(folder, tensors, "pytorch_model.bin")
    return tensors


def trained_by_llava(folder: Path, base: Path, tower: Path, *, rank: int = 4, alpha: int = 6) -> dict[str, Tensor]:
    """What its trainer leaves; returns all of it by its own names."""
    raw = RAW["v1.5-7b"] | {"mm_vision_tower": str(tower)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank,
                "lora_alpha": alpha, "lora_dropout": 0.05, "bias": "none", "inference_mode": True,
                "fan_in_fan_out": False, "target_modules": ["q_proj", "down_proj"]}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    width, ffn, factors = raw["hidden_size"], raw["intermediate_size"], []
    for layer in range(raw["num_hidden_layers"]):
        for name, into, out in (("self_attn.q_proj", width, width), ("mlp.down_proj", ffn, width)):
            module = f"base_model.model.model.layers.{layer}.{name}"
            factors += [(f"{module}.lora_A.weight", (rank, into)), (f"{module}.lora_B.weight", (out, rank))]
    lora: dict[str, Tensor] = originals.random(iter(factors), seed=4)
    others: dict[str, Tensor] = originals.random(originals.projector_tensors(raw), seed=9)
    torch.save(lora, folder / "adapter_model.bin")
    others = {f"base_model.model.{name}": held for name, held in others.items()}
    torch.save(others, folder / "non_lora_trainables.bin")
    return lora | others


def check_merged(found: dict[str, Tensor], words: dict[str, Tensor], adapter: dict[str, Tensor], scale: float) -> None:
    """W + scale B A where it was trained, W elsewhere, and the projector as it was left."""
    for name, tensor in words.items():
        if not name.startswith("model.layers."):
            continue
        module = f"base_model.model.{name.removesuffix('.weight')}"
        wanted = tensor
        if f"{module}.lora_A.weight" in adapter:
            wanted = tensor + scale * adapter[f"{module}.lora_B.weight"] @ adapter[f"{module}.lora_A.weight"]
        torch.testing.assert_close(found[f"model.language_model.{name[6:]}"], wanted, rtol=0, atol=1e-6)
    for number, layer in ((0, 1), (2, 2)):
        for part in ("weight", "bias"):
            wanted = adapter[f"base_model.model.model.mm_projector.{number}.{part}"]
            assert torch.equal(found[f"model.multi_modal_projector.linear_{layer}.{part}"], wanted)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    originals.save_tower(folder)
    return folder


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("vicuna")
    return folder, save_language_model(folder)


def test_llava_s_own_trainer_on_a_language_model(vicuna: Any, tower: Path, tmp_path: Path) -> None:
    adapter = trained_by_llava(tmp_path / "lora", vicuna[0], tower)
    check_merged(dict(load(tmp_path / "lora").named_parameters()), vicuna[1], adapter, scale=1.5)


@pytest.mark.parametrize("converted", [False, True])
def test_llava_s_own_trainer_on_a_llava(converted: bool, vicuna: Any, tower: Path, tmp_path: Path) -> None:
    """The base is the LLaVA in its original format, or the same in Hugging Face format: names are matched."""
    words = originals.save_original(tmp_path / "llava", "v1.5-7b", tower)
    if converted:
        convert(LoadSettings(str(tmp_path / "llava")), tmp_path / "hf")
    adapter = trained_by_llava(tmp_path / "lora", vicuna[0], tower)
    model = load(tmp_path / "lora", base=str(tmp_path / ("hf" if converted else "llava")))
    text = {name: held for name, held in words.items() if "mm_" not in name}
    check_merged(dict(model.named_parameters()), text, adapter, scale=1.5)


def test_converted_with_its_adapter(vicuna: Any, tower: Path, tmp_path: Path) -> None:
    trained_by_llava(tmp_path / "lora", vicuna[0], tower)
    done = command("convert", str(tmp_path / "lora"), str(tmp_path / "out"))
    assert (done.code, done.stdout) == (0, f"{tmp_path / 'out'}\n")
    stock, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    assert AutoProcessor.from_pretrained(tmp_path / "out").image_processor.do_pad
    found = dict(stock.named_parameters())
    for name, tensor in load(tmp_path / "lora").named_parameters():
        assert torch.equal(tensor, found[name]), name
    one, other = (adafv.load(str(tmp_path / name), device_map="cpu") for name in ("lora", "out"))
    picture = noise(80, 60)
    answers = [model.ask(picture, "what is this?", keep=4, max_new_tokens=4).text for model in (one, other)]
    assert answers[0] == answers[1]


def test_described_without_weights_and_without_peft(
    vicuna: Any, tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_by_llava(tmp_path / "lora", vicuna[0], tower)
    bare = tmp_path / "base"
    shutil.copytree(vicuna[0], bare, ignore=shutil.ignore_patterns("*.bin*"))
    for path in (tmp_path / "lora").glob("*.bin"):
        path.unlink()
    monkeypatch.setattr("adafv.loading.merging.is_installed", lambda _: False)
    settings = LoadSettings(str(tmp_path / "lora"), base=str(bare))
    config = read_config(settings)
    assert (config.model_type, config.image_token_id) == ("llava", 32_000)
    assert describe_prompts(locate(settings), config) is not None


# What cannot be merged.


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = torch.load(folder / "adapter_model.bin", weights_only=True)
    change(tensors)
    torch.save(tensors, folder / "adapter_model.bin")


def settings_of(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


LAYER = "base_model.model.model.layers.1.self_attn.q_proj"
DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "half a pair": (
        lambda folder: edit(folder, lambda held: held.pop(f"{LAYER}.lora_B.weight")),
        r"layers\.1\.self_attn\.q_proj\.lora_B is missing", "fetch",
    ),
    "half the layers": (
        lambda folder: edit(folder, lambda held: [held.pop(f"{LAYER}.lora_{part}.weight") for part in "AB"]),
        r"nothing for model\.language_model\.layers\.1\.self_attn\.q_proj", "--base",
    ),
    "no projector": (
        lambda folder: torch.save({}, folder / "non_lora_trainables.bin"),
        r"another base than this.*multi_modal_projector.* missing", "--base",
    ),
    "no weights": (lambda folder: (folder / "adapter_model.bin").unlink(), "holds no adapter_model.safe", "fetch"),
    "no other weights": (
        lambda folder: (folder / "non_lora_trainables.bin").unlink(), "holds no non_lora_trainables.bin", "fetch",
    ),
    "another width": (
        lambda folder: edit(folder, lambda held: held.update({f"{LAYER}.lora_A.weight": torch.zeros(4, 64)})),
        r"lora_A has the shape \(4, 64\), and its base's .* \(32, 32\)", "--base",
    ),
    "a layer that is not there": (
        lambda folder: edit(folder, lambda held: held.update(
            {f"base_model.model.model.layers.7.self_attn.q_proj.lora_{part}.weight": torch.zeros(shape)
             for part, shape in (("A", (4, 32)), ("B", (32, 4)))})),
        r"changes model\.language_model\.layers\.7\.self_attn\.q_proj, which its base does not have", "--base",
    ),
    "an unknown part": (
        lambda folder: edit(folder, lambda held: held.update({f"{LAYER}.lora_magnitude_vector": torch.ones(32)})),
        "of no part of a LoRA", "fetch",
    ),
    "another kind": (lambda folder: settings_of(folder, peft_type="IA3"), "adapter of the type 'IA3'", "merge it"),
    "a changed base": (
        lambda folder: settings_of(folder, init_lora_weights="pissa"), "init_lora_weights 'pissa'", "merge it",
    ),
    "no base named": (lambda folder: settings_of(folder, base_model_name_or_path=None), "names no base", "--base"),
    "no base here": (
        lambda folder: settings_of(folder, base_model_name_or_path="/data/vicuna"), "'/data/vicuna', which is not here",
        "--base",
    ),
    "an adapter for an adapter": (
        lambda folder: settings_of(folder, base_model_name_or_path=str(folder)), "is an adapter itself", "convert",
    ),
    "code in a pickle": (
        lambda folder: torch.save({"a": folder}, folder / "adapter_model.bin"), "more than tensors", "safetensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_merged_is_refused(damage: str, vicuna: Any, tower: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    trained_by_llava(folder, vicuna[0], tower)
    change, what, fix = DAMAGES[damage]
    change(folder)
    with pytest.raises(CheckpointError, match=what) as caught:
        load(folder)
    assert fix in caught.value.fix


def test_of_another_base_of_llava_s_trainer(vicuna: Any, tower: Path, tmp_path: Path) -> None:
    trained_by_llava(tmp_path / "lora", vicuna[0], tower)
    for hidden, layers in ((16, 2), (64, 2), (32, 3)):
        raw = RAW["v1.5-7b"] | {"hidden_size": hidden, "num_hidden_layers": layers}
        save_language_model(tmp_path / "other", raw)
        with pytest.raises(CheckpointError, match="was trained on another base than this") as caught:
            load(tmp_path / "lora", base=str(tmp_path / "other"))
        assert "--base" in caught.value.fix
        shutil.rmtree(tmp_path / "other")


def test_of_another_base_in_hugging_face_format(llava_folder: Path, vicuna: Any, tower: Path, tmp_path: Path) -> None:
    """Its projector has other shapes; that of PEFT's own adapters is told by their factors."""
    trained_by_llava(tmp_path / "lora", vicuna[0], tower)
    with pytest.raises(CheckpointError, match=r"of the shape|has the shape") as caught:
        load(tmp_path / "lora", base=str(llava_folder))
    assert "--base" in caught.value.fix
    wide = tiny.save_llava(tmp_path / "wide", text_config=tiny.text_config(320, hidden_size=64))
    trained(llava_folder, tmp_path / "own", target_modules=LANGUAGE)
    with pytest.raises(CheckpointError, match="and its base's") as caught:
        load(tmp_path / "own", base=str(wide))
    assert "--base" in caught.value.fix


def test_without_peft_and_where_nothing_can_be_merged(
    llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained(llava_folder, tmp_path / "adapter", target_modules=LANGUAGE)
    with pytest.raises(DeviceError, match="--quantize int8") as caught:
        load(folder, quantize="int8")
    assert "adafv convert" in caught.value.fix
    with pytest.raises(DeviceError, match="does not fit") as caught:
        load_checkpoint(LoadSettings(str(folder), device_map="disk", offload_folder=str(tmp_path / "off")))
    assert "adafv convert" in caught.value.fix
    with pytest.raises(InputError, match=r"base: .* is no adapter"):
        load(llava_folder, base=str(folder))
    monkeypatch.setattr("adafv.loading.merging.is_installed", lambda name: name != "peft")
    with pytest.raises(DeviceError, match="needs peft") as caught:
        load(folder)
    assert caught.value.fix == "pip install 'adafv[lora]'"
