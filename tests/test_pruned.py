"""Pruning under the caller's own `generate`: what `adafv.load` answers, with stock's ids, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache, TextIteratorStreamer

import adafv
from adafv import AdaFVError, BudgetError, CheckpointError, InputError
from adafv.decoding import splice
from adafv.families import FAMILIES
from adafv.pruners import BUILT_IN
from tests import tiny
from tests.conftest import noise
from tests.spying import listening
from tests.stock import run
from tests.untouched import anatomy

ASKED = [
    (noise(60, 80), "what color is the sign?"),
    (noise(130, 40, seed=1), "is there a red car? yes no how many boats are there"),
    (noise(56, 56, seed=2), "what?"),
]
GREEDY: dict[str, Any] = dict(do_sample=False, return_dict_in_generate=True, output_logits=True)
KEEP = 5


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"vision_feature_layers": [-2, 1]} if request.param == "vipllava" else {}
    return tiny.save(request.param, tmp_path_factory.mktemp(request.param), **changes)


@pytest.fixture(scope="module")
def ours(folder: Path) -> adafv.Model:
    return adafv.load(str(folder), dtype="float32")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def llava_model(llava_folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(llava_folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def llava_inputs(llava: adafv.Model) -> dict[str, Any]:
    return inputs(llava, ASKED[:1])


def inputs(ours: adafv.Model, asked: Sequence[tuple[Image.Image | None, str]], side: str = "left") -> dict[str, Any]:
    """What a processor makes of prompts, with or without an image."""
    config = ours.pipeline.model.config
    rows, pixels = [], []
    for image, question in asked:
        prompt, places = ours._prompter.prompt(question), 0
        if image is not None:
            pixels.append(ours.pipeline.preprocess(image))
            places = FAMILIES[config.model_type].stages.plan(config, *pixels[-1].size).packed
        rows.append([*prompt.before, *[config.image_token_id] * places, *prompt.after])
    longest = max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), 2), torch.zeros(len(rows), longest, dtype=torch.long)
    for row, tokens in enumerate(rows):
        place = slice(longest - len(tokens), None) if side == "left" else slice(len(tokens))
        ids[row, place], mask[row, place] = torch.tensor(tokens), 1
    made: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if pixels:
        values = torch.nn.utils.rnn.pad_sequence([image.values for image in pixels], batch_first=True)
        tiled = hasattr(config, "image_grid_pinpoints")
        made["pixel_values"] = values if tiled else values[:, 0]
        if tiled:
            made["image_sizes"] = torch.tensor([image.size for image in pixels])
    return made


def logits_of(output: Any) -> torch.Tensor:
    """(B, steps, vocabulary)."""
    return torch.stack(output.logits, dim=1)


def test_keeping_everything_is_stock(ours: adafv.Model, model: Any) -> None:
    given = inputs(ours, ASKED)
    stock = model.generate(**given, max_new_tokens=6, **GREEDY)
    for settings in ({"keep": "all"}, {"keep": 10_000}, {"keep": 5, "pruner": "none"}):
        with adafv.pruned(model, **settings):
            whole = model.generate(**given, max_new_tokens=6, **GREEDY)
        assert torch.equal(whole.sequences, stock.sequences)
        assert torch.equal(logits_of(whole), logits_of(stock))


@pytest.mark.parametrize("positions", ["compact", "original"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_equal_to_the_loaded_checkpoint(ours: adafv.Model, model: Any, positions: Any, side: str) -> None:
    given = inputs(ours, ASKED, side)
    with adafv.pruned(model, keep=KEEP, positions=positions):
        output = model.generate(**given, max_new_tokens=5, **GREEDY)
    length = given["input_ids"].shape[1]
    assert torch.equal(output.sequences[:, :length], given["input_ids"])
    stock = logits_of(model.generate(**inputs(ours, ASKED), max_new_tokens=5, **GREEDY))
    for row, (image, question) in enumerate(ASKED):
        with listening(ours) as heard:
            ours.ask(image, question, keep=KEEP, positions=positions, max_new_tokens=5)
        wanted = torch.cat(heard.logits)
        assert (logits_of(output)[row, : len(wanted)] - wanted).abs().max() < 1e-5
        assert (stock[row, 0] - wanted[0]).abs().max() > 1e-3  # pruning shows
        assert output.sequences[row, length : length + len(wanted)].tolist() == wanted.argmax(dim=1).tolist()


def test_the_cache_is_as_much_shorter(ours: adafv.Model, model: Any) -> None:
    given = inputs(ours, ASKED[:1])
    places = int((given["input_ids"] == ours.pipeline.model.config.image_token_id).sum())
    with adafv.pruned(model, keep=KEEP):
        output = model.generate(**given, max_new_tokens=3, **GREEDY)
    assert output.past_key_values.get_seq_length() == given["input_ids"].shape[1] - places + KEEP + 2


def test_text_alone_is_stock_also_beside_an_image(ours: adafv.Model, model: Any) -> None:
    alone = inputs(ours, [(None, "how many boats are there")])
    stock = model.generate(**alone, max_new_tokens=4, **GREEDY)
    with adafv.pruned(model, keep=KEEP):
        again = model.generate(**alone, max_new_tokens=4, **GREEDY)
        mixed = model.generate(**inputs(ours, [(None, ASKED[1][1]), ASKED[0]]), max_new_tokens=4, **GREEDY)
        pruned = model.generate(**inputs(ours, ASKED[:1]), max_new_tokens=4, **GREEDY)
    assert torch.equal(logits_of(again), logits_of(stock))
    text = model.generate(**inputs(ours, [(None, ASKED[1][1])]), max_new_tokens=4, **GREEDY)
    assert (logits_of(mixed) - torch.cat([logits_of(text), logits_of(pruned)])).abs().max() < 1e-5


def test_beams_search_as_they_do_on_the_pruned_prompt(ours: adafv.Model, model: Any) -> None:
    beams: dict[str, Any] = dict(num_beams=3, num_return_sequences=2, do_sample=False, max_new_tokens=6)
    given = inputs(ours, ASKED[:2])
    with adafv.pruned(model, keep=KEEP):
        output = model.generate(**given, **beams)[:, given["input_ids"].shape[1] :]
    _, outcomes = run(ours, *ASKED[:2], keep=KEEP)
    for number, ((_, question), outcome) in enumerate(zip(ASKED, outcomes, strict=False)):
        prompt, kept, table = ours._prompter.prompt(question), outcome.kept, model.get_input_embeddings()
        before, after = table(torch.tensor(prompt.before)), table(torch.tensor(prompt.after))
        embeddings = splice(before, kept.tokens, after, kept.places, 0, False).embeddings[None]
        wanted = model.generate(inputs_embeds=embeddings, attention_mask=torch.ones(embeddings.shape[:2]), **beams)
        assert output[2 * number : 2 * number + 2, : wanted.shape[1]].tolist() == wanted.tolist()


def test_a_prompt_may_be_encoded_once_and_asked_about_twice(ours: adafv.Model, model: Any) -> None:
    """Transformers' own way to share an encoding between questions, which older versions do not have."""
    if "mm_encoder_outputs" not in signature(model.forward).parameters:
        pytest.skip("transformers is older")
    given = inputs(ours, ASKED[:1])
    encode = {name: given[name] for name in ("pixel_values", "image_sizes") if name in given}
    text = {name: given[name] for name in ("input_ids", "attention_mask")}
    outside = model.get_image_features(**encode)
    with adafv.pruned(model, keep=KEEP):
        wanted = logits_of(model.generate(**given, max_new_tokens=3, **GREEDY))
        shared = model.get_image_features(**encode)
        for _ in range(2):
            again = model.generate(**text, mm_encoder_outputs={"image": shared}, max_new_tokens=3, **GREEDY)
            assert torch.equal(logits_of(again), wanted)
        with pytest.raises(InputError, match="encodings of the images that were made within"):
            model.generate(**text, mm_encoder_outputs={"image": outside}, max_new_tokens=3)


def test_a_forward_of_ones_own_loop(ours: adafv.Model, model: Any) -> None:
    """Images encoded within the forward, not before it, as older transformers always do."""
    given = inputs(ours, ASKED[:2])
    with torch.no_grad(), adafv.pruned(model, keep=KEEP):
        wanted = model.generate(**given, max_new_tokens=2, **GREEDY)
        cache = DynamicCache(config=model.config.get_text_config())
        first = model(**given, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        mask = torch.cat([given["attention_mask"], torch.ones(2, 1, dtype=torch.long)], dim=1)
        ids = first.argmax(dim=1, keepdim=True)
        second = model(input_ids=ids, attention_mask=mask, past_key_values=cache).logits[:, -1]
    assert (torch.stack([first, second], dim=1) - logits_of(wanted)).abs().max() < 1e-5


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_pruner_works(name: str, llava: adafv.Model, llava_model: Any, llava_inputs: dict[str, Any]) -> None:
    with adafv.pruned(llava_model, keep=KEEP, pruner=name, seed=3):
        output = llava_model.generate(**llava_inputs, max_new_tokens=2, **GREEDY)
    with listening(llava) as heard:
        llava.ask(*ASKED[0], keep=KEEP, pruner=name, seed=3, max_new_tokens=2)
    dropped = 0 if name == "none" else tiny.PATCHES - KEEP
    assert output.past_key_values.get_seq_length() == llava_inputs["input_ids"].shape[1] - dropped + 1
    if name not in ("cdpruner", "mmtok"):  # which look at the question alone, where they know it
        assert (logits_of(output)[0] - torch.cat(heard.logits)).abs().max() < 1e-5


def test_with_the_checkpoints_own_processor(llava: adafv.Model, llava_model: Any, llava_folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(llava_folder)
    prompt = llava._prompter.prompt(ASKED[0][1])
    given = processor(images=ASKED[0][0], text=prompt.text, return_tensors="pt")
    with adafv.pruned(llava_model, keep=KEEP):
        ids = llava_model.generate(**given, max_new_tokens=6, do_sample=False)
    text = processor.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == [llava.ask(*ASKED[0], keep=KEEP, max_new_tokens=6).text]


def test_generate_in_another_thread_with_a_streamer(llava_model: Any, llava_inputs: dict[str, Any]) -> None:
    streamer = TextIteratorStreamer(tiny.tokenizer(), skip_prompt=True, timeout=60)
    heard: list[Any] = []
    with adafv.pruned(llava_model, keep=KEEP):
        wanted = llava_model.generate(**llava_inputs, max_new_tokens=4, do_sample=False)
        asked = llava_inputs | {"max_new_tokens": 4, "do_sample": False, "streamer": streamer}
        thread = threading.Thread(target=lambda: heard.append(llava_model.generate(**asked)))
        thread.start()
        said = "".join(streamer)
        thread.join()
    assert torch.equal(heard[0], wanted)
    assert said == tiny.tokenizer().decode(wanted[0, llava_inputs["input_ids"].shape[1] :])


def test_the_model_is_as_before(ours: adafv.Model, model: Any) -> None:
    given = inputs(ours, ASKED)
    stock = model.generate(**given, max_new_tokens=3, **GREEDY)  # which leaves transformers' own hooks
    before = anatomy(model)
    with adafv.pruned(model, keep=KEEP):
        model.generate(**given, max_new_tokens=3, **GREEDY)
    assert anatomy(model) == before
    with suppress(ZeroDivisionError), adafv.pruned(model, keep=KEEP):
        raise ZeroDivisionError
    assert anatomy(model) == before
    with pytest.raises(ValueError, match="do not match"), adafv.pruned(model, keep=KEEP):
        model.generate(**given | {"input_ids": given["input_ids"][:, 3:-9]}, max_new_tokens=3)
    assert anatomy(model) == before
    again = model.generate(**given, max_new_tokens=3, **GREEDY)
    assert torch.equal(logits_of(again), logits_of(stock))


def test_a_failed_prompt_leaves_the_next_one_alone(llava_model: Any, llava_inputs: dict[str, Any]) -> None:
    with adafv.pruned(llava_model, keep=KEEP):
        wanted = llava_model.generate(**llava_inputs, max_new_tokens=3, **GREEDY)
        with pytest.raises(ValueError, match="do not match"):
            llava_model.generate(**llava_inputs | {"input_ids": llava_inputs["input_ids"][:, 6:]}, max_new_tokens=3)
        again = llava_model.generate(**llava_inputs, max_new_tokens=3, **GREEDY)
    assert torch.equal(logits_of(again), logits_of(wanted))


def test_a_method_that_somebody_else_replaced_stays_replaced(llava_model: Any, llava_inputs: dict[str, Any]) -> None:
    inner, called = llava_model.model, []
    method = inner.get_image_features

    @wraps(method)
    def theirs(*args: Any, **kwargs: Any) -> Any:
        called.append(1)
        return method(*args, **kwargs)

    inner.get_image_features = theirs
    try:
        with adafv.pruned(llava_model, keep=KEEP):
            llava_model.generate(**llava_inputs, max_new_tokens=1)
        assert inner.get_image_features is theirs and called == [1]
    finally:
        del inner.get_image_features


def test_wrapped_models_answer_as_always_meanwhile(llava_model: Any, llava_folder: Path, llava: adafv.Model) -> None:
    wrapped = adafv.wrap(llava_model, AutoProcessor.from_pretrained(llava_folder))
    with adafv.pruned(llava_model, keep=2):
        answer = wrapped.ask(*ASKED[0], keep=KEEP, max_new_tokens=5)
    assert (answer.text, answer.tokens) == (
        (wanted := llava.ask(*ASKED[0], keep=KEEP, max_new_tokens=5)).text,
        wanted.tokens,
    )


def test_one_within_the_other_is_refused_and_one_after_the_other_works(llava_model: Any) -> None:
    for _ in range(2):
        with adafv.pruned(llava_model, keep=KEEP), pytest.raises(InputError, match="is being pruned already"):
            adafv.pruned(llava_model, keep=3).__enter__()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no cache": (dict(use_cache=False), "needs a cache of its own"),
    "a static cache": (dict(cache_implementation="static"), "needs a cache of its own"),
    "another layer": (dict(vision_feature_layer=1), "vision_feature_layer: 1 is not the configuration's -2"),
    "[CLS]": (dict(vision_feature_select_strategy="full"), "vision_feature_select_strategy: 'full' is not"),
}


@pytest.mark.parametrize(("settings", "what"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_pruned_is_refused(
    settings: dict[str, Any], what: str, llava_model: Any, llava_inputs: dict[str, Any]
) -> None:
    with adafv.pruned(llava_model, keep=KEEP), pytest.raises(InputError, match=what):
        llava_model.generate(**llava_inputs | {"max_new_tokens": 3, "do_sample": False} | settings)


def test_a_pruned_prompts_cache_is_not_gone_on_with(llava_model: Any, llava_inputs: dict[str, Any]) -> None:
    with adafv.pruned(llava_model, keep=KEEP):
        output = llava_model.generate(**llava_inputs, max_new_tokens=3, **GREEDY)
        longer = torch.cat([output.sequences, torch.tensor([[7, 8, 9]])], dim=1)
        with pytest.raises(InputError, match="goes on by one token at a time"):
            llava_model.generate(input_ids=longer, past_key_values=output.past_key_values, max_new_tokens=2)
        with pytest.raises(InputError, match="needs a cache of its own"):
            llava_model.generate(**llava_inputs, past_key_values=filled(llava_model), max_new_tokens=2)
        with pytest.raises(InputError, match="needs a cache of its own"):
            llava_model(**llava_inputs)


def test_an_assistants_guesses_are_refused(llava_model: Any, llava_inputs: dict[str, Any]) -> None:
    with adafv.pruned(llava_model, keep=KEEP), pytest.raises(InputError, match="goes on by one token at a time"):
        llava_model.generate(**llava_inputs, assistant_model=llava_model, max_new_tokens=8, do_sample=False)


def filled(model: Any) -> DynamicCache:
    """A cache that holds two tokens."""
    cache = DynamicCache(config=model.config.get_text_config())
    model(input_ids=torch.tensor([[5, 6]]), past_key_values=cache)
    return cache


def test_several_images_in_a_prompt_are_refused(ours: adafv.Model, model: Any) -> None:
    one, two = inputs(ours, ASKED[:1]), inputs(ours, ASKED[1:2])
    images = inputs(ours, ASKED[:2])
    ids = torch.cat([one["input_ids"], two["input_ids"]], dim=1)
    given = images | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with adafv.pruned(model, keep=KEEP):
        for beams in (1, 2):
            with pytest.raises(InputError, match="cannot be pruned") as caught:
                model.generate(**given, max_new_tokens=2, num_beams=beams, do_sample=False)
            assert "each prompt one image" in caught.value.fix


def test_text_behind_the_image_is_needed_by_what_reads_it(llava_model: Any, llava_inputs: dict[str, Any]) -> None:
    ids = llava_inputs["input_ids"]
    last = int((ids[0] == llava_model.config.image_token_id).nonzero()[-1])
    given = llava_inputs | {name: llava_inputs[name][:, : last + 1] for name in ("input_ids", "attention_mask")}
    with adafv.pruned(llava_model, keep=KEEP), pytest.raises(InputError, match="no text behind the image"):
        llava_model.generate(**given, max_new_tokens=2)
    with adafv.pruned(llava_model, keep=KEEP, pruner="saliency"):
        assert llava_model.generate(**given, max_new_tokens=2, do_sample=False).shape[1] == last + 3


def test_models_and_settings_that_cannot_be_used(llava: adafv.Model, llava_model: Any) -> None:
    refused: list[tuple[Any, dict[str, Any], type[AdaFVError]]] = [
        (llava, {}, CheckpointError),
        (llava_model.model, {}, CheckpointError),
        (llava_model, {"keep": "lots"}, BudgetError),
        (llava_model, {"pruner": "nobody"}, InputError),
        (llava_model, {"positions": "random"}, InputError),
    ]
    before = anatomy(llava_model)
    for other, settings, error in refused:
        with pytest.raises(error), adafv.pruned(other, **settings):
            pytest.fail("it began")
    assert anatomy(llava_model) == before


@pytest.mark.parametrize("spread", ["parts", "vision on disk", "language on disk"])
def test_wherever_accelerate_holds_the_model(spread: str, folder: Path, ours: adafv.Model, model: Any) -> None:
    parts = ["model.vision_tower", "model.multi_modal_projector", "model.language_model", "lm_head"]
    device_map = dict.fromkeys(
        [*parts, *(["model.image_newline"] if hasattr(model.model, "image_newline") else [])], "cpu"
    )
    if spread != "parts":
        device_map["model.vision_tower" if spread.startswith("vision") else "model.language_model"] = "disk"
    spread_out = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, device_map=device_map)
    given, outputs = inputs(ours, ASKED), []
    for one in (model, spread_out):
        with adafv.pruned(one, keep=KEEP):
            outputs.append(logits_of(one.generate(**given, max_new_tokens=3, **GREEDY)))
    assert torch.equal(*outputs)
