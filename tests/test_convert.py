"""`adafv convert`: what it writes is what stock transformers loads; a folder is complete, or it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import adafv
from adafv import CheckpointError
from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.conversion import convert
from adafv.settings import LoadSettings
from tests import originals
from tests.cli_fakes import adafv as command
from tests.conftest import noise

QUESTION = "what color is the sign?"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    originals.save_tower(folder)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tower: Path) -> Path:
    """LLaVA-1.5: pickled weights in float32, no tower inside."""
    folder = tmp_path_factory.mktemp("original")
    originals.save_original(folder, "v1.5-7b", tower)
    return folder


def stock(folder: Path) -> tuple[Any, Any]:
    """As transformers loads it by itself; nothing missing, nothing left over."""
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    return model, AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("kind, whole", [("v1.5-7b", "pytorch_model.bin"), ("v1.6-mistral-7b", "model.safetensors")])
def test_stock_transformers_loads_what_is_written(kind: str, whole: str, tower: Path, tmp_path: Path) -> None:
    source, folder = tmp_path / "in", tmp_path / "out"
    inside = originals.save_tower(tmp_path / "other", seed=7) if kind != "v1.5-7b" else None
    originals.save_original(source, kind, tower, inside=inside, whole=whole)
    convert(LoadSettings(str(source)), folder)
    model, processor = stock(folder)
    assert model.dtype == getattr(torch, originals.RAW[kind]["torch_dtype"])  # bfloat16 stays bfloat16
    found = dict(model.named_parameters())
    loaded = load_checkpoint(LoadSettings(str(source), device_map="cpu"))
    for name, tensor in loaded.model.named_parameters():
        assert torch.equal(tensor, found[name]), name
    assert set(found) - set(dict(loaded.model.named_parameters())) == {
        name
        for name in found
        if "vision_tower.encoder.layers.2." in name  # which LLaVA does not use
    }
    assert model.config.architectures == [type(model).__name__]
    assert processor.tokenizer.get_vocab() == loaded.processor.tokenizer.get_vocab()
    assert type(processor.image_processor) is type(loaded.processor.image_processor)
    assert processor.image_processor.do_pad  # as `image_aspect_ratio` asks for; tiles are padded to their mosaic
    assert model.generation_config.eos_token_id == 2
    again = adafv.load(str(folder), device_map="cpu", dtype="float32")
    before = adafv.load(str(source), device_map="cpu", dtype="float32")
    picture = noise(90, 60)
    one, other = (m.ask(picture, QUESTION, keep=4, max_new_tokens=4) for m in (before, again))
    assert (one.text, one.tokens, one.prompt) == (other.text, other.tokens, other.prompt)


def test_files_are_of_a_size_that_fits_into_memory(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 4_110_000  # no more than one of the two tables
    monkeypatch.setattr("adafv.loading.conversion._SHARD", limit)
    convert(LoadSettings(str(original)), tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    held = {path.name: load_file(path) for path in files}
    assert [path.name for path in files] == [
        f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)
    ]
    assert len(files) > 2
    assert index["weight_map"] == {name: file for file, tensors in held.items() for name in tensors}
    sizes = [[tensor.nbytes for tensor in tensors.values()] for tensors in held.values()]
    assert all(sum(each) <= limit or len(each) == 1 for each in sizes)
    assert index["metadata"]["total_size"] == sum(map(sum, sizes))
    stock(tmp_path / "out")


def test_nothing_is_left_of_a_conversion_that_fails(tower: Path, tmp_path: Path) -> None:
    tensors = originals.save_original(tmp_path / "in", "v1.5-7b", tower)
    tensors["model.norm.weight"][3] = float("nan")
    originals.save_shards(tmp_path / "in", tensors, "pytorch_model.bin")
    there = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"norm\.weight holds values that are not finite"):
        convert(LoadSettings(str(tmp_path / "in")), tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == there


@pytest.mark.parametrize(
    "damage, what",
    [
        (lambda tensors: tensors.pop("model.mm_projector.2.bias"), "linear_2.bias is missing"),
        (lambda tensors: tensors.update({"model.mm_projector.4.bias": torch.zeros(1)}), "original format"),
        (lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}), "norm.weight has the shape"),
        (lambda tensors: tensors.update({"model.norm.weight": torch.zeros(32).long()}), "holds numbers of the type"),
    ],
    ids=["missing", "left over", "misshapen", "integers"],
)
def test_tensors_that_are_not_the_model_s(damage: Any, what: str, tower: Path, tmp_path: Path) -> None:
    tensors = originals.save_original(tmp_path / "in", "v1.5-7b", tower)
    damage(tensors)
    originals.save_shards(tmp_path / "in", tensors, "pytorch_model.bin")
    for use in (load_checkpoint, lambda settings: convert(settings, tmp_path / "out")):
        with pytest.raises(CheckpointError, match=what):
            use(LoadSettings(str(tmp_path / "in")))


def test_the_command(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("convert", str(original), str(out))
    assert (done.code, done.stdout) == (0, f"{out}\n")
    assert (out / "model.safetensors").is_file() and sorted(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "args, code, what",
    [
        (["IN", "THERE"], 2, "OUT: THERE exists"),
        (["IN", "no/where"], 2, "OUT: no/where lies in no folder that exists"),
        (["demo", "new"], 2, "IN: 'demo' is a checkpoint in Hugging Face format"),
        (["nothing/here", "new", "--offline"], 3, "nothing/here"),
        (["IN", "new", "--base", "demo"], 2, "--base:"),
        (["IN", "new", "--vision-tower", "no tower"], 3, "'no tower'"),
    ],
)
def test_what_the_command_refuses(
    args: list[str], code: int, what: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "THERE").mkdir()
    there = sorted(tmp_path.iterdir())
    done = command("convert", *(str(original) if arg == "IN" else arg for arg in args))
    assert (done.code, done.stdout) == (code, "")
    assert what in done.stderr
    assert sorted(tmp_path.iterdir()) == there
