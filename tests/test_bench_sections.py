"""The sections of a bench on a tiny model: both sides do the same work, and every figure has what it is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from adafv import flops, stepping
from adafv.bench import stock as stock_module
from adafv.bench import suite, throughput
from adafv.bench.compiled import Compiled
from adafv.bench.geometries import geometry
from adafv.bench.machine import Machine
from adafv.bench.records import ALONE, STOCK, UNPRUNED, Bench, Row
from adafv.bench.selection import Selection
from adafv.bench.stock import Stock
from adafv.bench.subject import Subject
from adafv.bench.vision import Vision
from adafv.errors import DeviceError, InputError
from adafv.settings import LoadSettings

MACHINE = Machine("a CPU", 1, None, 1e10, {"float32": 1e11, "bfloat16": 1e11}, {})
PLAN = suite.Plan(pruners=("adafv", "divprune"), batch_sizes=(1, 2), new_tokens=3, rounds=2, minutes=5)


def subject(name: str = "tiny-next", pictures: int = 4) -> Subject:
    return Subject.random(geometry(name), torch.float32, torch.device("cpu"), "sdpa", pictures)


@pytest.fixture(scope="module")
def bench() -> Bench:
    found = Bench(MACHINE, {})
    suite.run([("tiny-next", subject)], PLAN, found, lambda _: None)
    return found


def rows(bench: Bench, section: str) -> dict[str, Row]:
    return {row.variant: row for row in bench.rows if row.section == section}


def test_all_sections_are_measured_and_what_cannot_be_is_named(bench: Bench) -> None:
    assert not bench.partial
    assert list(dict.fromkeys(row.section for row in bench.rows)) == ["latency", "pruners", "throughput", "vision"]
    unmeasured = [(one.section, "CUDA" in one.reason) for one in bench.unmeasured]
    assert unmeasured == [("synchronisations", True), ("compiled", True)]
    assert {row.rounds for row in bench.rows} == {2}


def test_latency_has_both_sides_and_every_budget(bench: Bench) -> None:
    found = rows(bench, "latency")
    assert list(found) == [STOCK, UNPRUNED, "adafv 64", "adafv 32", "adafv 16"]
    assert found[STOCK].flops == found[UNPRUNED].flops
    spent = [row.flops["ttft"] for row in found.values()][1:]
    assert spent == sorted(spent, reverse=True)
    for row in found.values():
        assert row.bound_s["ttft"] == max(row.flops["ttft"] / 1e11, row.bound_s["ttft"])
        assert {"ttft", "decode", "tpot", "total"} <= row.seconds.keys()
    pruned = found["adafv 16"]
    assert [gain.over for gain in pruned.speedups] == [STOCK, UNPRUNED]
    assert pruned.flops_ratio == found[UNPRUNED].flops["ttft"] / pruned.flops["ttft"]
    assert pruned.attained == pytest.approx(pruned.speedups[1].median / pruned.flops_ratio)
    assert found[UNPRUNED].flops_ratio is None


def test_throughput_compares_with_one_by_one_and_with_batches(bench: Bench) -> None:
    found = rows(bench, "throughput")
    assert list(found) == [
        "transformers, batch 1", "unpruned, batch 1", "adafv 32, batch 1",
        "transformers, batch 2", "unpruned, batch 2", "adafv 32, batch 2",
    ]  # fmt: skip
    over = [gain.over for gain in found["adafv 32, batch 2"].speedups]
    assert over == ["transformers, batch 1", "transformers, batch 2", "unpruned, batch 2"]
    assert found["transformers, batch 1"].speedups == ()


def test_several_questions_about_an_image_are_timed_with_and_without_what_they_share() -> None:
    one = subject()
    section = throughput.Throughput(one, 128, "adafv", (1, 4), 4, 2)
    shares: dict[str, set[int]] = {}
    begin = one.model.pipeline.begin

    def spy(*args):
        begun = begin(*args)
        shares.setdefault(name, set()).update(decoded.result().shared for _, decoded in begun)
        return begun

    one.model.pipeline.begin = spy  # type: ignore[method-assign]
    rounds = section.rounds()
    for variant in rounds.variants:
        name = variant.name
        variant.run()
    chosen = [f"adafv 128 (select {select}), batch 4" for select in ("image", "split")]
    assert {name for name, found in shares.items() if found != {0}} == {"unpruned, batch 4", *chosen}
    assert len(shares[chosen[0]]) == 2 < len(shares[chosen[1]])  # one prefix, and for each picture what saliency chose
    assert [name for name in shares if "select" in name] == chosen  # a lone question has nobody to choose with
    assert f"{ALONE}, batch 4" in shares and f"{ALONE}, batch 1" not in shares
    quick = {f"{ALONE}, batch 4": 4.0, "unpruned, batch 4": 1.0, "adafv 128, batch 4": 2.0}
    for noise in (0.0, 0.1):
        rounds.samples.append({way.name: {"question": quick.get(way.name, 9.0) + noise} for way in rounds.variants})
    found = {row.variant: row for row in section.rows(rounds, MACHINE)}
    assert found["unpruned, batch 4"].notes == ("the cheapest at 4 questions an image",)
    selects = [row.settings["select"] for row in found.values() if "pruner" in row.settings]
    assert selects == ["question", "question", "image", "split"]
    assert found["adafv 128, batch 4"].notes == () == found["transformers, batch 4"].notes
    rounds.samples.append({way.name: {"question": 1.0} for way in rounds.variants})
    others = f"{ALONE} and adafv 128 and adafv 128 (select image) and adafv 128 (select split)"
    close = f"the cheapest at 4 questions an image, not told apart from {others}"
    assert {row.variant: row for row in section.rows(rounds, MACHINE)}["unpruned, batch 4"].notes == (close,)


def test_a_pruner_that_goes_by_the_image_alone_has_no_other_way_to_choose() -> None:
    one = subject("tiny", pictures=1)
    for pruner, selects in (("saliency", set()), ("mmtok", {"image"}), ("adafv", {"image", "split"})):
        for per_picture, others in ((1, set()), (4, selects)):
            section = throughput.Throughput(one, 16, pruner, (1, 2), per_picture, 2)
            assert {way.select for way in section._ways} == {"question", *others}


def test_choosing_is_put_beside_the_prefill_that_it_saves(bench: Bench) -> None:
    found = rows(bench, "pruners")
    assert list(found) == ["adafv", "divprune"]
    section = Selection(subject(), 16, ["adafv"], 2)
    rounds = section.rounds()
    rounds.take(1, float("inf"), lambda _: None)
    text = section._subject.accountant.text
    request = section._asked()[0]
    lengths = [length + request.prompt.text_tokens for length in (len(request.image.packed), 16)]
    saved = flops.prefill(text, lengths[0]) - flops.prefill(text, lengths[1])
    quick = {"adafv": {"selection": 0.5}, "prefill, unpruned": {"prefill": 60.0}, "prefill, pruned": {"prefill": 10.0}}
    rounds.samples = [quick] * 2  # two questions: choosing for them is 0.5 s of 100 s
    (row,) = section.rows(rounds, MACHINE)
    share = 100 * row.flops["selection"] / 2 / saved
    assert row.notes == (f"0.5 % of the prefill time that it saves, {share:.2g} % by FLOPs",)


def test_maps_of_all_layers_are_timed_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    one, made = subject(), []
    tower = one.stock.model.vision_tower
    hook = tower.register_forward_hook(lambda _module, _args, out: made.append(out.attentions))
    section = Vision(one, (2,))
    rounds = section.rounds()
    rounds.take(1, float("inf"), lambda _: None)
    hook.remove()
    found = {row.variant: row for row in section.rows(rounds, MACHINE)}
    assert list(found) == [
        "transformers, 2 images",
        "adafv, with saliency, 2 images",
        "adafv, 2 tiles of each, 2 images",
        "eager, all attention maps, 2 images",
    ]
    assert {len(maps) for maps in made if maps} == {tower.config.num_hidden_layers}
    assert tower.config._attn_implementation == "sdpa"
    assert [gain.over for gain in found["eager, all attention maps, 2 images"].speedups] == ["transformers, 2 images"]

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Vision, "_eager", full)
    section = Vision(one, (1,))
    rounds = section.rounds()
    rounds.take(1, float("inf"), lambda _: None)
    found = {row.variant: row for row in section.rows(rounds, MACHINE)}
    assert found["eager, all attention maps, 1 image"].notes == ("more than the memory holds",)
    assert found["adafv, with saliency, 1 image"].rate is not None


def test_stock_and_our_unpruned_engine_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    one, made = subject(), []
    generate = type(one.stock).generate

    def spy(self, *args, **kwargs):
        made.append(generate(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(type(one.stock), "generate", spy)
    stock, asked = Stock(one), one.questions(2, 1)
    inputs = stock.inputs(asked)
    stock.answer(inputs, 4)
    run = one.run_settings("all", 4)
    ours = [answer.text for answer in one.model.stream(asked, run)]
    new = made[0][:, inputs["input_ids"].shape[1] :]
    assert [one.processor.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in new] == ours


def test_questions_share_pictures_as_often_as_they_shall() -> None:
    asked = subject(pictures=3).questions(6, 2)
    assert [id(one.image) for one in asked[::2]] == [id(one.image) for one in asked[1::2]]
    assert len({id(one.image) for one in asked}) == 3


def test_no_picture_is_asked_the_same_twice_or_more_often_than_it_shall_be() -> None:
    whole = subject("tiny", pictures=1)
    for per_picture, size in product((1, 3, 4, 8, 20), (1, 8, 15)):
        plan = suite.Plan(batch_sizes=(1, size), per_picture=per_picture)
        one = replace(whole, pictures=[whole.pictures[0].copy() for _ in range(plan.pictures)])
        count = throughput.Throughput(one, 16, "uniform", plan.batch_sizes, per_picture, 1)._count
        asked = [(id(question.image), question.text) for question in one.questions(count, per_picture)]
        assert len(set(asked)) == len(asked) >= 2 * size
        assert max(Counter(image for image, _ in asked).values()) == per_picture


def test_what_fills_the_memory_is_a_note_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Stock, inputs: object, new_tokens: int) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(stock_module.Stock, "answer", full)
    section = throughput.Throughput(subject(), 16, "adafv", (1,), 1, 2)
    taken = section.rounds()
    taken.take(2, float("inf"), lambda _: None)
    found = {row.variant: row for row in section.rows(taken, MACHINE)}
    assert found["transformers, batch 1"].notes and found["transformers, batch 1"].rate is None
    assert found["adafv 16, batch 1"].rate is not None


def test_any_other_failure_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Stock, inputs: object, new_tokens: int) -> None:
        raise RuntimeError("expected scalar type Half")

    monkeypatch.setattr(stock_module.Stock, "answer", broken)
    section = throughput.Throughput(subject(), 16, "adafv", (1,), 1, 2)
    with pytest.raises(RuntimeError, match="Half"):
        section.rounds().take(1, float("inf"), lambda _: None)


def test_a_subject_that_does_not_fit_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large() -> Subject:
        raise DeviceError("geometry: large needs 80 GiB", "")

    found = Bench(MACHINE, {})
    plan = suite.Plan(batch_sizes=(1,), new_tokens=1, rounds=1)
    suite.run([("large", too_large), ("tiny", lambda: subject("tiny"))], plan, found, lambda _: None)
    assert {row.subject for row in found.rows} == {"tiny"}
    assert ("all", "large", "geometry: large needs 80 GiB") in [
        (o.section, o.subject, o.reason) for o in found.unmeasured
    ]


def test_compiled_steps_are_timed_beside_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model's own forward in place of a compiled one; what is then not compiled after all is said."""
    made: list[int] = []

    def forward(model: Any, device: object) -> Any:
        made.append(1)
        return model.__call__ if len(made) == 1 else print  # which takes no tensors

    monkeypatch.setattr(stepping, "_compiled", forward)
    for names, note in ((["generate, batch 2", "compiled, batch 2"], "the first batch took"), ([], "TypeError: ")):
        found = Bench(MACHINE, {})
        plan = suite.Plan(batch_sizes=(2,), new_tokens=3, rounds=2, compile=True)
        suite.run([("tiny", lambda: subject("tiny"))], plan, found, lambda _: None)
        plain, compiled = rows(found, "compiled").values()
        assert [row.variant for row in (plain, compiled) if "tpot" in row.seconds] == (names or ["generate, batch 2"])
        assert [gain.over for gain in compiled.speedups] == names[:1]
        assert plain.notes == () and note in compiled.notes[0]
    one = subject("tiny")
    monkeypatch.setattr(one.stock.config.get_text_config(), "_attn_implementation_internal", "eager")
    suite.run([("tiny", lambda: one)], plan, found, lambda _: None)
    assert ("compiled", "eager attention has no masks of fixed size here") in [
        (missing.section, missing.reason) for missing in found.unmeasured
    ]


def test_what_did_not_fit_compiled_is_not_timed_as_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone question is answered without compiled steps then: its time is not theirs."""

    def full(**_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(stepping, "_compiled", lambda *_: full)
    section = Compiled(subject("tiny", pictures=1), 16, "adafv", (1,), 3)
    rounds = section.rounds()
    rounds.take(1, float("inf"), lambda _: None)
    plain, compiled = section.rows(rounds, MACHINE)
    assert compiled.notes == ("more than the memory holds",) and not compiled.seconds
    assert "tpot" in plain.seconds and plain.notes == ()


def test_no_time_measures_nothing_and_says_so() -> None:
    found = Bench(MACHINE, {})
    suite.run([("tiny", lambda: subject("tiny"))], suite.Plan(minutes=1e-9), found, lambda _: None)
    assert found.rows == []
    assert [one.subject for one in found.unmeasured] == ["tiny"]


def test_a_checkpoint_is_asked_about_the_users_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(path)
    one = Subject.loaded(LoadSettings(), [path], 3)
    assert len({picture.tobytes() for picture in one.pictures}) == 3
    assert one.keeps == (64, 32, 15)
    with pytest.raises(InputError, match="no image"):
        Subject.loaded(LoadSettings(), [], 1)
