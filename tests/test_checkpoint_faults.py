"""Every fault that a checkpoint can have is an error that names it and says what to do; nothing loads at random."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adafv import CheckpointError, DeviceError
from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.reading import read_config
from adafv.settings import LoadSettings
from tests import tiny
from tests.damages import field
from tests.spoiling import (
    Edit,
    Malicious,
    added,
    config,
    cut,
    less,
    more,
    part,
    pickled,
    sharded,
    spoiled,
    tensors,
    tensors_of,
    without,
    written,
)

AGAIN = "fetch the checkpoint again"
LLAVA = "llava-hf/llava-1.5-7b-hf"
NEWLINE_OWNERS = "only LLaVA-NeXT and LLaVA-OneVision have it"
TOWER, HEAD = "vision_tower.encoder.layers.0.mlp.fc1.weight", "language_model.lm_head.weight"
FAULTS: dict[str, tuple[Edit, str, str]] = {
    # name: (what is done to the folder, in the error, in the fix)
    "no config": (without("config.json"), "holds no config.json", "Hugging Face checkpoint folder"),
    "config cut off": (written("config.json", '{"model_type": "lla'), "config.json is not valid JSON", AGAIN),
    "config a list": (written("config.json", "[]"), "config.json is not a JSON object", AGAIN),
    "no type": (config(model_type=None), "of the type None", LLAVA),
    "unknown type": (config(model_type="flava9"), "of the type 'flava9'", LLAVA),
    "another model": (config(model_type="bert"), "of the type 'bert'", LLAVA),
    "own code": (
        config(model_type="odd", auto_map={"AutoConfig": "odd.Config"}),
        "code of its own, which adafv never runs",
        LLAVA,
    ),
    "no vision part": (config(vision_config=None), "no vision_config", AGAIN),
    "no text part": (config(text_config=None), "no text_config", AGAIN),
    "vision part a number": (config(vision_config=5), "no vision_config", AGAIN),
    "no CLIP tower": (part("vision_config", model_type="siglip_vision_model"), "siglip_vision_model", "CLIP"),
    "all patches and [CLS]": (config(vision_feature_select_strategy="full"), "'full'", "CLIP"),
    "no such feature layer": (config(vision_feature_layer=99), "vision_feature_layer 99", "config.json"),
    "width a word": (part("text_config", hidden_size="wide"), "'hidden_size' expected int, got str", AGAIN),
    "odd heads": (part("text_config", num_attention_heads=7), "not a multiple", AGAIN),
    "unknown language model": (part("text_config", model_type="nope"), "nope", AGAIN),
    "unknown dtype": (config(dtype="float17"), "float17", AGAIN),
    "geometry of a giant": (part("text_config", hidden_size=8192, vocab_size=128000), "but the weights are", AGAIN),
    "no weights": (without("model.safetensors"), "holds no weights", AGAIN),
    "weights cut off": (cut("model.safetensors", 40_000), "model.safetensors is cut off or damaged", AGAIN),
    "weights empty": (cut("model.safetensors", 0), "model.safetensors is cut off or damaged", AGAIN),
    "weights are text": (written("model.safetensors", "version https://git-lfs"), "cut off or damaged", AGAIN),
    "shard missing": (
        sharded(without("model-00002-of-00002.safetensors")),
        "model-00002-of-00002.safetensors is missing",
        AGAIN,
    ),
    "shard cut off": (
        sharded(cut("model-00001-of-00002.safetensors", 20_000)),
        "model-00001-of-00002.safetensors is cut off",
        AGAIN,
    ),
    "index missing": (sharded(without("model.safetensors.index.json")), "no model.safetensors.index.json", AGAIN),
    "index cut off": (sharded(cut("model.safetensors.index.json", 99)), "index.json is not valid JSON", AGAIN),
    "index of nothing": (sharded(written("model.safetensors.index.json", "{}")), "has no weight_map", AGAIN),
    "index of a name too long": (
        sharded(field("model.safetensors.index.json", "weight_map", {"lm_head.weight": "a" * 300})),
        "index.json names a weight file 'aaaaaaaa",
        AGAIN,
    ),
    "index of another folder": (
        sharded(field("model.safetensors.index.json", "weight_map", {"lm_head.weight": "../model.safetensors"})),
        "index.json names a weight file '../model.safetensors'",
        AGAIN,
    ),
    "index of no name": (
        sharded(field("model.safetensors.index.json", "weight_map", {"lm_head.weight": None})),
        "index.json names a weight file None",
        AGAIN,
    ),
    "whole numbers for weights": (
        tensors(lambda held: held.update({HEAD: held[HEAD].to(torch.int64)})),
        "model.safetensors: language_model.lm_head.weight holds numbers of the type I64",
        AGAIN,
    ),
    "yes and no for weights": (
        sharded(tensors_of("model-00002-of-00002.safetensors", lambda held: {k: v > 0 for k, v in held.items()})),
        "holds numbers of the type BOOL",
        AGAIN,
    ),
    "the end is a word": (field("generation_config.json", "eos_token_id", "stop"), "eos_token_id is stop", AGAIN),
    "an end that is no token": (field("generation_config.json", "eos_token_id", [1, 2**70]), "below 313", AGAIN),
    "a beginning that is no token": (field("generation_config.json", "bos_token_id", {}), "bos_token_id is {}", AGAIN),
    "tokens behind the table": (added("<far>", 9_999), "give '<far>' the id 313, the model has 313", "tokenizer.json"),
    "tensor missing in the tower": (
        less(TOWER),
        "the tensor model.vision_tower.encoder.layers.0.mlp.fc1.weight",
        AGAIN,
    ),
    "tensor missing in the projector": (
        less("multi_modal_projector.linear_2.bias"),
        "model.multi_modal_projector.linear_2.bias is missing",
        AGAIN,
    ),
    "tensor missing in the language model": (
        less("language_model.model.layers.1.mlp.up_proj.weight"),
        "model.language_model.layers.1.mlp.up_proj.weight is missing",
        AGAIN,
    ),
    "head missing": (less(HEAD), "lm_head.weight is missing", AGAIN),
    "too few layers": (part("text_config", num_hidden_layers=3), "9 tensors (the first is", "do not belong together"),
    "too many layers": (part("text_config", num_hidden_layers=1), "left over", "do not belong together"),
    "another shape": (
        part("text_config", vocab_size=400),
        "the shape (313, 48) where config.json wants (400, 48)",
        AGAIN,
    ),
    "tensor of another model": (more("language_model.model.extra.weight", (3,)), "extra.weight is left over", AGAIN),
    "weights of LLaVA-NeXT": (more("image_newline", (48,)), "image_newline is left over", NEWLINE_OWNERS),
    "config of LLaVA-NeXT": (config(model_type="llava_next"), "the image processor made 1 crops", "do not belong"),
    "not a number": (spoiled(TOWER, float("nan")), "layers.0.mlp.fc1.weight holds values that are not finite", AGAIN),
    "infinite": (spoiled(HEAD, float("inf")), "lm_head.weight holds values that are not finite", AGAIN),
    "no tokenizer": (without("tokenizer.json"), "no tokenizer (tokenizer.json", AGAIN),
    "tokenizer cut off": (cut("tokenizer.json", 500), "tokenizer.json is not valid JSON", AGAIN),
    "another file for a tokenizer": (written("tokenizer.json", "{}"), "tokenizer.json", AGAIN),
    "no image processor": (without("processor_config.json"), "no image processor (processor_config.json or pre", AGAIN),
    "half an image processor": (written("processor_config.json", "{}"), "preprocessor_config.json", AGAIN),
    "processor cut off": (cut("processor_config.json", 60), "processor_config.json is not valid JSON", AGAIN),
    "generation settings cut off": (cut("generation_config.json", 20), "generation_config.json is not valid", AGAIN),
    "an adapter": (written("adapter_config.json", "{}"), "is an adapter", "merge it"),
}


@pytest.mark.parametrize("edit, what, fix", FAULTS.values(), ids=FAULTS.keys())
def test_faults(edit: Edit, what: str, fix: str, llava_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(llava_folder, folder)
    edit(folder)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert str(folder) in caught.value.what or "vision_feature_layer" in what
    assert len(caught.value.what) < 600


@pytest.mark.parametrize(
    "name, what",
    [
        ("", "no folder ''"),
        ("./nothing", "no folder './nothing'"),
        ("../nothing", "no folder '../nothing'"),
        ("/nothing/here", "no folder '/nothing/here'"),
        ("~/nothing", "no folder '~/nothing'"),
        ("some/where/else", "no folder 'some/where/else'"),
        (__file__, "is a file"),
    ],
)
def test_no_folder(name: str, what: str) -> None:
    for load in (load_checkpoint, read_config):
        with pytest.raises(CheckpointError, match="model: ") as caught:
            load(LoadSettings(name))
        assert what in caught.value.what
        assert "folder" in caught.value.fix


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_checkpoint(LoadSettings(str(tmp_path)))


def test_what_is_no_fault(llava_folder: Path, tmp_path: Path) -> None:
    """Shards, buffers that old versions saved, names that they gave, and files that nobody needs."""
    folder = tmp_path / "old"
    shutil.copytree(llava_folder, folder)

    def older(held: dict[str, torch.Tensor]) -> None:
        for name in [name for name in held if name.startswith("vision_tower.")]:
            held[name.replace("vision_tower.", "vision_tower.vision_model.")] = held.pop(name)
        held["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        held["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)

    for edit in (tensors(older), sharded(), without("generation_config.json", "chat_template.jinja")):
        edit(folder)
    (folder / "README.json").write_text("not JSON")
    plain, found = (load_checkpoint(LoadSettings(str(path))).model for path in (llava_folder, folder))
    for (name, one), (other_name, other) in zip(plain.named_parameters(), found.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)


def test_tied_heads_are_not_missing(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    text = tiny.text_config(len(words), tie_word_embeddings=True)
    folder = tiny.save_llava(tmp_path / "tied", text_config=text, tie_word_embeddings=True)
    assert HEAD not in load_file(folder / "model.safetensors")
    model = load_checkpoint(LoadSettings(str(folder))).model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_load_report_is_ours(llava_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_checkpoint(LoadSettings(str(llava_folder)))
    said = capfd.readouterr()
    assert "UNEXPECTED" not in said.out + said.err


def test_pickled_weights(llava_folder: Path, tmp_path: Path) -> None:
    folder = pickled(llava_folder, tmp_path / "pickled")
    plain, found = (load_checkpoint(LoadSettings(str(path))).model for path in (llava_folder, folder))
    for one, other in zip(plain.parameters(), found.parameters(), strict=True):
        assert torch.equal(one, other)


def test_malicious_pickles_are_not_run(llava_folder: Path, tmp_path: Path) -> None:
    folder, made = pickled(llava_folder, tmp_path / "pickled"), tmp_path / "made by the pickle"
    held = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(held | {"lm_head.weight": Malicious(str(made))}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors") as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert "safetensors" in caught.value.fix
    assert not made.exists()


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_a_newline_that_is_missing(family: str, tmp_path: Path) -> None:
    """As the conversion script of LLaVA-1.5 leaves a LLaVA-1.6."""
    folder = tiny.save(family, tmp_path / family)
    less("image_newline")(folder)
    with pytest.raises(CheckpointError, match="image_newline is missing") as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert NEWLINE_OWNERS in caught.value.fix


def test_pickled_whole_numbers(llava_folder: Path, tmp_path: Path) -> None:
    folder = pickled(llava_folder, tmp_path / "pickled")
    held = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({key: tensor.to(torch.int8) for key, tensor in held.items()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: .* holds numbers of the type int8"):
        load_checkpoint(LoadSettings(str(folder)))


@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_damaged_pickles(size: int, llava_folder: Path, tmp_path: Path) -> None:
    folder = pickled(llava_folder, tmp_path / "pickled")
    cut("pytorch_model.bin", size)(folder)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert str(folder) in caught.value.what
    assert caught.value.fix


def test_flash_attention_that_is_not_installed(llava_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("may be usable here")
    with pytest.raises(DeviceError, match="flash_attention_2") as caught:
        load_checkpoint(LoadSettings(str(llava_folder), attention="flash_attention_2"))
    assert caught.value.fix == "use --attention sdpa"


@pytest.mark.parametrize("name", ["file", "file/below", "a" * 300], ids=["file", "below", "long"])
@pytest.mark.parametrize("model", ["demo", "folder"])
def test_an_offload_folder_that_cannot_be_used(name: str, model: str, llava_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    chosen = model if model == "demo" else str(llava_folder)
    with pytest.raises(DeviceError, match=r"offload_folder: .* cannot be written to") as caught:
        load_checkpoint(LoadSettings(chosen, device_map="disk", offload_folder=str(tmp_path / name)))
    assert "--offload-folder" in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_package_that_is_missing(llava_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "awq"
    shutil.copytree(llava_folder, folder)
    config(quantization_config={"quant_method": "awq", "bits": 4})(folder)
    with pytest.raises(DeviceError, match="gptqmodel") as caught:
        load_checkpoint(LoadSettings(str(folder)))
    assert "install" in caught.value.fix


def test_memory_that_runs_out(llava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("transformers.LlavaForConditionalGeneration.from_pretrained", full)
    with pytest.raises(DeviceError, match="does not fit into memory") as caught:
        load_checkpoint(LoadSettings(str(llava_folder)))
    assert "--quantize int4" in caught.value.fix
