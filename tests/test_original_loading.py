"""Checkpoints in LLaVA's original format answer as what they were trained as, tensor for tensor and logit for logit.

Each is held to two references that read the same files by other ways: a plain LLaVA put together from a language model
and a vision tower, and transformers' own LLaVA with tensors named one by one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    MistralConfig,
)

import adafv
from adafv import CheckpointError, DeviceError
from adafv.loading.checkpoint import Checkpoint, load_checkpoint
from adafv.settings import LoadSettings
from tests import originals
from tests.conftest import noise
from tests.hub_server import hub, use
from tests.originals import IMAGE_IDS, RAW, ROWS
from tests.stock import run
from tests.tiny import IMAGE

KINDS = list(RAW)
QUESTION = "what color is the sign?"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("tower")
    return folder, originals.save_tower(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tower: Any) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    """Folder and tensors of each, in both formats of weights."""
    made = {}
    for kind in KINDS:
        folder, whole = tmp_path_factory.mktemp(kind), "model.safetensors" if "6-" in kind else "pytorch_model.bin"
        made[kind] = folder, originals.save_original(folder, kind, tower[0], whole=whole)
    return made


def plain_names(tensors: dict[str, Tensor], tower: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """What a loaded LLaVA calls them, said one by one."""
    named = {
        "lm_head.weight": tensors["lm_head.weight"],
        "model.language_model.embed_tokens.weight": tensors["model.embed_tokens.weight"],
        "model.language_model.norm.weight": tensors["model.norm.weight"],
        "model.multi_modal_projector.linear_1.weight": tensors["model.mm_projector.0.weight"],
        "model.multi_modal_projector.linear_1.bias": tensors["model.mm_projector.0.bias"],
        "model.multi_modal_projector.linear_2.weight": tensors["model.mm_projector.2.weight"],
        "model.multi_modal_projector.linear_2.bias": tensors["model.mm_projector.2.bias"],
    }
    named |= {f"model.language_model.{k[6:]}": v for k, v in tensors.items() if k.startswith("model.layers.")}
    named |= {f"model.vision_tower.{k}": v for k, v in tower.items() if f".layers.{layers}." not in k}
    if "model.image_newline" in tensors:
        named["model.image_newline"] = tensors["model.image_newline"]
    return named


@pytest.mark.parametrize("kind", KINDS)
def test_tensor_for_tensor(kind: str, saved: Any, tower: Any) -> None:
    folder, tensors = saved[kind]
    own = getattr(torch, RAW[kind]["torch_dtype"])
    model = load_checkpoint(LoadSettings(str(folder), device_map="cpu")).model
    assert model.dtype == own  # bfloat16 stays bfloat16
    wanted = plain_names(tensors, tower[1], layers=2)
    found = dict(model.named_parameters())
    assert set(found) == set(wanted)
    for name, parameter in found.items():
        want = wanted[name].to(own)
        if name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
            assert parameter.shape[0] == ROWS[kind]  # as the conversion makes it: a multiple of 64
            mean = want.float().mean(dim=0).to(own)
            assert torch.equal(parameter[len(want) :], mean.expand(ROWS[kind] - len(want), -1))
            parameter = parameter[: len(want)]
        assert torch.equal(parameter, want), name


def plain_logits(vision: Any, tensors: dict[str, Tensor], tower: dict[str, Tensor], ids: Any, image: Any) -> Tensor:
    """LLaVA-1.5 in full: pad, encode, project, put between the words, read on."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in (0.48145466, 0.4578275, 0.40821073)))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    edge = {"height": IMAGE, "width": IMAGE}
    pixels = CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size=edge)(square, return_tensors="pt")
    eye = CLIPVisionModel(CLIPVisionConfig(**vision.to_dict())).eval()
    eye.load_state_dict(tower)
    hidden = eye(pixels["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    first, second = ([tensors[f"model.mm_projector.{n}.{part}"] for part in ("weight", "bias")] for n in (0, 2))
    visual = nn.functional.linear(nn.functional.gelu(nn.functional.linear(hidden, *first)), *second)
    sizes = {key: value for key, value in RAW["v1.5-7b"].items() if key in LlamaConfig().to_dict()}
    words = LlamaForCausalLM(LlamaConfig(**sizes | {"model_type": "llama"})).eval()
    words.load_state_dict({key: value for key, value in tensors.items() if "mm_" not in key})
    table = words.get_input_embeddings()
    parts = [table(torch.tensor([ids[0]])), visual, table(torch.tensor([ids[1]]))]
    logits: Tensor = words(inputs_embeds=torch.cat(parts, dim=1)).logits[:, -1]
    return logits


@torch.inference_mode()
@pytest.mark.parametrize("size", [(70, 56), (56, 90), (60, 60)])
def test_logit_for_logit_with_padding(size: tuple[int, int], saved: Any, tower: Any) -> None:
    """Nothing of an image is cut off, as in training: `image_aspect_ratio` is `pad`."""
    folder, tensors = saved["v1.5-7b"]
    model, image = adafv.load(str(folder), device_map="cpu"), noise(*size)
    prompt = model._prompter.prompt(QUESTION)
    vision = CLIPVisionConfig.from_pretrained(tower[0])
    wanted = plain_logits(vision, tensors, tower[1], (prompt.before, prompt.after), image)
    logits, _ = run(model, (image, QUESTION), keep="all")
    torch.testing.assert_close(logits[:, :32_000], wanted, rtol=1e-4, atol=1e-4)
    assert (logits[:, 32_000:] < logits.max()).all()  # rows that were added are never generated


@torch.inference_mode()
@pytest.mark.parametrize("kind, size", [(KINDS[1], (120, 56)), (KINDS[2], (56, 150)), (KINDS[3], (60, 60))])
def test_logit_for_logit_with_tiles(kind: str, size: tuple[int, int], saved: Any, tower: Any) -> None:
    """Against transformers' own LLaVA-NeXT, whose new rows are drawn at random, as its conversion does."""
    folder, tensors = saved[kind]
    model, image, raw = adafv.load(str(folder), dtype="float32", device_map="cpu"), noise(*size), RAW[kind]
    text_config = MistralConfig if "mistral" in kind else LlamaConfig
    sizes = {key: value for key, value in raw.items() if key in text_config().to_dict() or key == "rope_theta"}
    text = text_config(**sizes | {"vocab_size": ROWS[kind], "model_type": text_config.model_type})
    config = LlavaNextConfig(
        text_config=text, vision_config=CLIPVisionConfig.from_pretrained(tower[0]),
        image_grid_pinpoints=raw["image_grid_pinpoints"], image_token_index=IMAGE_IDS[kind],
    )  # fmt: skip
    named = {key: held.float() for key, held in plain_names(tensors, tower[1], layers=99).items()}
    for table in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
        extra = torch.randn(ROWS[kind] - len(named[table]), raw["hidden_size"]) * 0.001
        named[table] = torch.cat([named[table], extra])
    stock = LlavaNextForConditionalGeneration(config).eval()
    stock.load_state_dict(named)
    prompt, images = model._prompter.prompt(QUESTION), LlavaNextImageProcessorPil(**image_fields(raw))
    pixels = images(image, return_tensors="pt")
    packed = stock.get_image_features(**pixels).pooler_output[0].shape[0]
    ids = torch.tensor([[*prompt.before, *[IMAGE_IDS[kind]] * packed, *prompt.after]])
    wanted = stock(input_ids=ids, **pixels, logits_to_keep=1).logits[:, -1, : raw["vocab_size"]]
    logits, _ = run(model, (image, QUESTION), keep="all")
    torch.testing.assert_close(logits[:, : raw["vocab_size"]], wanted, rtol=1e-4, atol=1e-4)


def image_fields(raw: dict[str, Any]) -> dict[str, Any]:
    edge = {"height": IMAGE, "width": IMAGE}
    return dict(size={"shortest_edge": IMAGE}, crop_size=edge, image_grid_pinpoints=raw["image_grid_pinpoints"])


def loaded(folder: Path, **settings: Any) -> Checkpoint:
    return load_checkpoint(LoadSettings(str(folder), device_map="cpu", **settings))


def same(one: Any, other: Any) -> bool:
    first, second = (dict(checkpoint.model.named_parameters()) for checkpoint in (one, other))
    return first.keys() == second.keys() and all(torch.equal(held, second[name]) for name, held in first.items())


def test_a_tower_in_the_checkpoint_counts_more(tower: Any, saved: Any, tmp_path: Path) -> None:
    """LLaVA-1.6 tuned its tower, and its checkpoints hold it."""
    other = originals.save_tower(tmp_path / "other", seed=6)
    originals.save_original(tmp_path / "tuned", "v1.5-7b", tower[0], inside=other)
    found = dict(loaded(tmp_path / "tuned").model.named_parameters())
    layer = "encoder.layers.0.self_attn.q_proj.weight"
    assert torch.equal(found[f"model.vision_tower.{layer}"], other[layer])
    assert not torch.equal(other[layer], tower[1][layer])


def test_the_tower_that_a_user_gives(tower: Any, saved: Any, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(saved["v1.5-7b"][0], folder)
    raw = json.loads((folder / "config.json").read_text())
    for named in ("/data/someone/clip-vit", None):
        (folder / "config.json").write_text(json.dumps(raw | {"mm_vision_tower": named}))
        with pytest.raises(CheckpointError) as caught:
            loaded(folder)
        assert (repr(named) if named else "no vision tower") in caught.value.what
        assert "--vision-tower" in caught.value.fix
        assert same(loaded(folder, vision_tower=str(tower[0])), loaded(saved["v1.5-7b"][0]))


def test_towers_that_cannot_be_used(tower: Any, saved: Any, llava_folder: Path, tmp_path: Path) -> None:
    """No weights in it; another kind; a hub id that is not here: the error names it and says --vision-tower."""
    shutil.copytree(tower[0], tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    for place in (tmp_path / "empty", llava_folder, "nobody/no-such-tower"):
        with pytest.raises(CheckpointError) as caught:
            loaded(saved["v1.5-7b"][0], vision_tower=str(place), offline=True)
        assert str(place) in caught.value.what
        assert "--vision-tower" in caught.value.fix


def test_without_sentencepiece_a_tokenizer_of_its_is_refused(saved: Any, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "spiece"
    shutil.copytree(saved["v1.5-7b"][0], folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    monkeypatch.setattr("adafv.loading.original.is_installed", lambda name: name != "sentencepiece")
    with pytest.raises(DeviceError, match="needs sentencepiece") as caught:
        loaded(folder)
    assert caught.value.fix == "pip install 'adafv[original]'"


def test_a_known_tower_is_described_without_a_network(saved: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from adafv.loading.reading import describe_prompts, read_config
    from adafv.loading.source import locate

    shutil.copytree(saved["v1.5-7b"][0], tmp_path / "named")
    raw = RAW["v1.5-7b"] | {"mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    (tmp_path / "named" / "config.json").write_text(json.dumps(raw))
    for path in (tmp_path / "named").glob("*.bin"):
        path.unlink()
    use("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    settings = LoadSettings(str(tmp_path / "named"))
    config = read_config(settings)
    assert (config.vision_config.image_size, config.image_seq_length, config.image_token_id) == (336, 576, 32_000)
    prompts = describe_prompts(locate(settings), config)
    assert prompts is not None and prompts.chat_template == "vicuna" and prompts.stops == ("</s>",)


def test_from_the_hub(saved: Any, tower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(saved["v1.5-7b"][0], tmp_path, monkeypatch):
        fetched = load_checkpoint(LoadSettings("us/tiny", device_map="cpu"))
    use("http://127.0.0.1:9", tmp_path, monkeypatch)
    cached = load_checkpoint(LoadSettings("us/tiny", device_map="cpu", offline=True))
    assert same(fetched, cached) and same(fetched, loaded(saved["v1.5-7b"][0]))


def test_its_tokenizer_has_the_image_as_the_converted_ones_have(saved: Any) -> None:
    for kind in KINDS:
        words = loaded(saved[kind][0]).processor.tokenizer
        assert words.convert_tokens_to_ids("<image>") == IMAGE_IDS[kind]
        assert words.tokenize("a<image>b").count("<image>") == 1
        assert words.pad_token == ("<pad>" if kind == "v1.6-mistral-7b" else "<unk>")


def test_a_tokenizer_of_sentencepiece(saved: Any, tmp_path: Path) -> None:
    """What is before and behind the image is tokenized as LLaVA's own code does: each part by itself."""
    pytest.importorskip("google.protobuf")
    model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")

    folder = tmp_path / "spiece"
    shutil.copytree(saved["v1.5-7b"][0], folder)
    words, model = originals.tokenizer("v1.5-7b"), model_pb2.ModelProto()
    for token, number in sorted(words.get_vocab().items(), key=lambda entry: entry[1]):
        kind = 6 if token.startswith("<0x") else {0: 2, 1: 3, 2: 3}.get(number, 1)
        model.pieces.add(piece=token, score=-float(number), type=kind)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "pad_token": "<unk>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    checkpoint = loaded(folder)
    prompt = checkpoint.prompter.prompt(QUESTION)
    before, _, after = prompt.text.partition("<image>")
    apart = LlamaTokenizer.from_pretrained(folder)
    assert prompt.before == apart(before).input_ids
    assert prompt.after == apart(after).input_ids[1:]  # without <s>
