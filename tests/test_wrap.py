"""A model that the caller has loaded answers as the loaded checkpoint does, wherever it is, and stays as it was."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

import adafv
from adafv import CheckpointError, stepping
from adafv.families import FAMILIES, family_of
from adafv.families.hooks import recording
from adafv.loading.processing import load_processor
from adafv.timing import Stopwatch
from tests import tiny
from tests.conftest import noise
from tests.untouched import anatomy

pytestmark = pytest.mark.filterwarnings("ignore:The following device_map keys do not match")
PARTS = ("model.vision_tower", "model.multi_modal_projector", "model.image_newline", "model.language_model", "lm_head")
QUESTIONS = ["what color is the sign?", "how many boats are there"]
MAPS: dict[str, Any] = {
    "plain": None,
    "one map": {"": "cpu"},
    "parts": dict.fromkeys(PARTS, "cpu"),
    "vision on disk": dict.fromkeys(PARTS, "cpu") | {"model.vision_tower": "disk"},
    "all but the head on disk": {"model": "disk", "lm_head": "cpu"},
}


@pytest.fixture(scope="module", params=[*FAMILIES, "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "siglip":
        settings = tiny.siglip() | {"vision_feature_layer": -2}
        return tiny.save("llava", folder, images=tiny.siglip_image_processor(), **settings)
    layers = {"vipllava": {"vision_feature_layers": [-2, 1]}, "llava_onevision": {"vision_feature_layer": -2}}
    return tiny.save(request.param, folder, **layers.get(request.param, {}))


def stock(folder: Path, device_map: Any = None) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, device_map=device_map)


def processor_of(folder: Path) -> Any:
    """As stock loads it, where torchvision is missing and where it is not."""
    return load_processor(str(folder), family_of(AutoConfig.from_pretrained(folder)), {})


def told(answers: list[adafv.Answer]) -> list[object]:
    return [(answer.text, answer.tokens, answer.flops, answer.memory_bytes, answer.error) for answer in answers]


def same(one: adafv.Model, other: adafv.Model) -> None:
    """Encodings bit for bit, and whole answers, pruned and not."""
    image = noise(90, 130)
    encodings = (model.pipeline.encode([model.pipeline.preprocess(image)], Stopwatch())[0] for model in (one, other))
    mine, theirs = encodings
    for name in ("packed", "features", "saliency"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
    for keep in (5, "all"):
        asked = [list(model.answer(image, QUESTIONS, keep=keep, max_new_tokens=6)) for model in (one, other)]
        assert told(asked[0]) == told(asked[1])


@pytest.mark.parametrize("device_map", MAPS.values(), ids=MAPS)
def test_equal_to_the_loaded_checkpoint_wherever_it_is(folder: Path, device_map: Any) -> None:
    model = stock(folder, device_map)
    model(input_ids=torch.tensor([[5, 6]]))  # transformers' own hooks come with the first forward
    before = anatomy(model)
    same(adafv.wrap(model, processor_of(folder)), adafv.load(str(folder), dtype="float32"))
    assert anatomy(model) == before


@pytest.mark.parametrize("spread", ["dispatched", "cpu offload", "disk offload"])
def test_equal_when_the_caller_called_accelerate(folder: Path, spread: str, tmp_path: Path) -> None:
    model = stock(folder)
    if spread == "dispatched":
        model = dispatch_model(model, dict.fromkeys(PARTS, "cpu"), force_hooks=True)
    elif spread == "cpu offload":
        cpu_offload(model, "cpu")
    else:
        disk_offload(model, str(tmp_path / "weights"), "cpu")
    same(adafv.wrap(model, processor_of(folder)), adafv.load(str(folder), dtype="float32"))


def test_layers_that_are_not_used_are_left_out_and_stay(folder: Path) -> None:
    model = stock(folder)
    layers = model.model.vision_tower.encoder.layers
    wrapped, ran = adafv.wrap(model, processor_of(folder)), []
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    wrapped.ask(noise(60, 60), QUESTIONS[0], keep=5, max_new_tokens=1)
    assert ran == [0, 1]
    model.model.vision_tower(torch.zeros(1, 3, tiny.IMAGE, tiny.IMAGE))
    assert ran == [0, 1, 0, 1, 2]


def test_the_callers_own_sampling_settings_neither_count_nor_change(folder: Path) -> None:
    model = stock(folder)
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0, max_new_tokens=1)
    before = model.generation_config.to_dict()
    wrapped = adafv.wrap(model, processor_of(folder))
    same(wrapped, adafv.load(str(folder), dtype="float32"))
    assert model.generation_config.to_dict() == before


def test_another_threads_forward_is_neither_recorded_nor_ended() -> None:
    one, two = torch.nn.Identity(), torch.nn.Identity()
    given, heard = torch.ones(1), []
    with recording({"one": one}, last=two) as recorded:
        thread = threading.Thread(target=lambda: heard.append(two(one(given))))
        thread.start()
        thread.join()
        assert not recorded and heard == [given]
        two(one(given))
        pytest.fail("the forward went on behind the last module")
    assert recorded == {"one": given}
    assert two(one(given)) is given


def test_it_says_what_it_is(llava_folder: Path) -> None:
    wrapped = adafv.wrap(stock(llava_folder), AutoProcessor.from_pretrained(llava_folder))
    assert repr(wrapped) == f"<adafv.Model {llava_folder}: LLaVA-1.5, float32 on cpu>"
    assert wrapped.model_id == str(llava_folder) and not wrapped.is_demo


def test_models_of_other_classes_are_refused(llava_folder: Path) -> None:
    whole, processor = stock(llava_folder), AutoProcessor.from_pretrained(llava_folder)
    for other in (whole.model, whole.model.language_model, "llava-hf/llava-1.5-7b-hf", adafv.load(str(llava_folder))):
        with pytest.raises(CheckpointError, match=f"a {type(other).__name__} is not the whole model of LLaVA-1.5, "):
            adafv.wrap(other, processor)


def test_a_model_in_training_mode_is_refused(llava_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="training mode") as caught:
        adafv.wrap(stock(llava_folder).train(), AutoProcessor.from_pretrained(llava_folder))
    assert "eval()" in caught.value.fix


def test_a_tower_without_saliency_is_refused(llava_folder: Path) -> None:
    model = stock(llava_folder)
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(CheckpointError, match="as if it were a patch"):
        adafv.wrap(model, AutoProcessor.from_pretrained(llava_folder))


def foreign(kind: str, folder: Path) -> Any:
    """A processor that does not belong to a tiny LLaVA-1.5."""
    if kind == "another family's":
        return AutoProcessor.from_pretrained(tiny.save_llava_next(folder))
    processor = AutoProcessor.from_pretrained(tiny.save_llava(folder))
    if kind == "no processor":
        return processor.tokenizer
    if kind == "another size":
        processor.image_processor.crop_size = processor.image_processor.size = {"height": 28, "width": 28}
    if kind == "more words":
        processor.tokenizer.add_tokens(["another", "words"])
    return processor


@pytest.mark.parametrize("kind", ["another family's", "no processor", "another size", "more words"])
def test_a_processor_of_another_model_is_refused(kind: str, llava_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        adafv.wrap(stock(llava_folder), foreign(kind, tmp_path))
    assert "give the processor that was saved with this model" in caught.value.fix


def test_another_placeholder_is_refused(llava_folder: Path) -> None:
    model = stock(llava_folder)
    model.config.image_token_id = 7
    with pytest.raises(CheckpointError) as caught:
        adafv.wrap(model, AutoProcessor.from_pretrained(llava_folder))
    assert "give the processor that was saved with this model" in caught.value.fix


def test_a_wrapped_model_may_decode_in_compiled_steps(llava_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def eager(model: Any, device: torch.device) -> Any:
        def step(**inputs: Any) -> Any:
            steps.append(1)
            return model(**inputs)

        return step

    monkeypatch.setattr(stepping, "_compiled", eager)
    model = stock(llava_folder)
    before = anatomy(model)
    wrapped = adafv.wrap(model, processor_of(llava_folder), compile=True)
    assert wrapped.describe()["compile"] is True and not steps
    same(wrapped, adafv.load(str(llava_folder), dtype="float32"))
    assert steps and anatomy(model) == before
    assert "compile" not in adafv.wrap(model, processor_of(llava_folder)).describe()
