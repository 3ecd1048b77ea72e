"""The memory of a stream: batches fit into it, and nothing is held for longer than it is needed."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import adafv
from adafv import BatchSettings, Question, generating, headroom
from adafv.encoding import Pixels
from adafv.errors import ImageError, OutOfMemoryError
from adafv.headroom import Headroom
from adafv.pipeline import Pipeline
from adafv.request import EncodingCost
from adafv.streaming.answerer import StreamStats
from adafv.streaming.encoder_cache import EncoderCache, Loaded
from adafv.streaming.recent import Recent
from adafv.streaming.scheduling import Scheduler
from adafv.streaming.sizing import BatchSize
from adafv.streaming.tickets import Image, Ticket
from adafv.timing import Stopwatch
from tests.conftest import noise
from tests.stock import encoded
from tests.test_streaming import RUN, questions, texts


def test_batches_grow_while_there_is_room(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run, went = [], Pipeline.begin, BatchSize.went

    def counting(self: Pipeline, rows: list, *others: object) -> object:  # type: ignore[type-arg]
        sizes.append(len(rows))
        return run(self, rows, *others)

    monkeypatch.setattr(Pipeline, "begin", counting)
    monkeypatch.setattr(Headroom, "doubles", lambda _: True)
    monkeypatch.setattr(BatchSize, "went", lambda self, _, room: went(self, 1.0, room=room))  # each as fast as all
    assert len(list(llava.stream(questions(150, 2), replace(RUN, max_new_tokens=1)))) == 150
    assert sizes[:3] == [8, 16, 32] and sizes[3:] in ([64, 30], [30, 64])
    sizes.clear()
    list(llava.stream(questions(20, 2), replace(RUN, max_new_tokens=1), BatchSettings(batch_size=4)))
    assert max(sizes) == 4


def test_batches_do_not_grow_where_nobody_knows_of_room(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "resident", lambda _: None)  # no Linux
    stream = llava.stream(questions(40, 2), replace(RUN, max_new_tokens=1))
    assert len(list(stream)) == 40 and stream.stats.batch_size == 8


@pytest.mark.parametrize(
    "peaks,weights,room",
    [((40, 10), 0, True), ((50, 10), 0, False), ((10, 60), 0, False), ((70, 70), 60, True), ((80, 70), 60, False)],
)
def test_there_is_room_where_every_device_holds_the_work_twice_and_the_weights_once(
    monkeypatch: pytest.MonkeyPatch, peaks: tuple[int, int], weights: int, room: bool
) -> None:
    devices = [torch.device("cpu"), torch.device("cuda:0"), torch.device("cuda:1")]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device.index])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: weights)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=100))
    monkeypatch.setattr(headroom, "reset_resident", lambda: True)
    assert Headroom(devices).doubles() == room
    for peak, known, there in ((89, 30, False), (80, 30, room), (89, None, room)):  # of the process, beside the devices
        monkeypatch.setattr(headroom, "resident", {"VmRSS": 60, "VmHWM": peak}.get)
        monkeypatch.setattr(headroom, "available", lambda known=known: known)
        assert Headroom(devices).doubles() == there


@pytest.mark.parametrize("resting,peak,room", [(60, 80, True), (60, 89, False), (0, 80, False)])
def test_a_cpu_has_room_for_what_the_process_took_once_more(
    monkeypatch: pytest.MonkeyPatch, resting: int, peak: int, room: bool
) -> None:
    """Of 30 that are free, 27 count."""
    sizes = {"VmRSS": resting, "VmHWM": peak}
    monkeypatch.setattr(headroom, "reset_resident", lambda: True)
    monkeypatch.setattr(headroom, "resident", sizes.get)
    monkeypatch.setattr(headroom, "available", lambda: 30)
    assert Headroom([torch.device("cpu")]).doubles() == room


@pytest.mark.parametrize("limit,free", [("100", 60), ("9999999", 2048), ("max", 2048)])
def test_memory_that_is_free_is_the_container_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, free: int
) -> None:
    files = {"meminfo": "MemTotal: 9 kB\nMemAvailable: 2 kB\n", "memory.max": limit, "memory.current": "70"}
    for name, text in (files | {"memory.stat": "anon 1\ninactive_file 30\n"}).items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(headroom, "_SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(headroom, "_GROUP", tmp_path)
    assert headroom.available() == free


def grown(asked: Any, rates: dict[int, float], room: bool = True) -> list[int]:
    """Sizes of batches one after the other, where a batch of each size has that many answers a second."""
    size, sizes = BatchSize(asked), []
    for _ in range(12):
        sizes.append(size.now)
        size.went(size.now / rates[size.now], room=room)
    return sizes


@pytest.mark.parametrize(
    "asked,rates,room,sizes",
    [
        ("auto", {8: 1, 16: 2, 32: 3, 64: 4, 128: 5, 256: 6, 512: 7}, True, [8, 16, 32, 64, 128, 256, *[512] * 6]),
        ("auto", {8: 10, 16: 15, 32: 15.7}, True, [8, 16, 32, 32, *[16] * 8]),  # a gain of less than 5 %, twice
        ("auto", {8: 10, 16: 5}, True, [8, 16, 16, *[8] * 9]),
        ("auto", {8: 10}, False, [8] * 12),
        (4, {4: 1}, True, [4] * 12),
    ],
)
def test_batches_grow_as_long_as_that_is_faster(
    asked: Any, rates: dict[int, float], room: bool, sizes: list[int]
) -> None:
    assert grown(asked, rates, room) == sizes


def test_the_first_batch_of_a_size_may_be_slow() -> None:
    size = BatchSize("auto")
    size.went(8.0, room=True)
    size.went(99.0, room=True)
    assert size.now == 16
    size.went(8.0, room=True)
    assert size.now == 32


def test_batches_that_did_not_fit_do_not_grow_again() -> None:
    size = BatchSize("auto")
    size.went(1.0, room=True)
    size.fitted(5)
    for _ in range(4):
        size.went(0.001, room=True)
    assert size.now == 5


def test_out_of_memory_halves_the_batch_and_loses_nothing(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], Pipeline.begin

    def small(self: Pipeline, rows: list, *others: object) -> object:  # type: ignore[type-arg]
        sizes.append(len(rows))
        if len(rows) > 2:
            raise OutOfMemoryError("out of memory", "less")
        return run(self, rows, *others)

    asked = questions(20, 6)
    wanted = texts(list(llava.stream(asked, RUN)))
    monkeypatch.setattr(Pipeline, "begin", small)
    stream = llava.stream(asked, RUN, BatchSettings(batch_size=8))
    answers = list(stream)
    assert texts(answers) == wanted
    assert sizes[:4] == [8, 4, 2, 2]
    assert max(sizes[4:]) <= 4 and stream.stats.batch_size == 2
    assert (stream.stats.images_encoded, stream.stats.cache_hits) == (6, 14)
    assert len([a for a in answers if a.flops is not None and a.flops.vision]) == 6


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "cpu", "cublas"],
)
def test_what_did_not_fit_is_gone_before_less_is_tried(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    left, generate = [], generating.generate

    def full(model: object, prompts: list, *others: object, **how: object) -> object:  # type: ignore[type-arg]
        left.append(sum(tensor() is not None for tensor in held))
        cache = torch.ones(len(prompts))
        held.append(weakref.ref(cache))
        if len(prompts) > 1:
            raise type(error)(*error.args)
        return generate(model, prompts, *others, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(generating, "generate", full)
    answers = list(llava.stream(questions(4, 2), RUN, BatchSettings(batch_size=4)))
    assert all(a.error is None for a in answers)
    assert len(left) > 4 and not any(left)


def test_a_question_that_fits_no_memory_fails_alone(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pipeline.begin

    def picky(self: Pipeline, rows: list, *others: object) -> object:  # type: ignore[type-arg]
        if any(row.prompt.text_tokens > 40 for row in rows):
            raise OutOfMemoryError("out of memory", "less")
        return run(self, rows, *others)

    monkeypatch.setattr(Pipeline, "begin", picky)
    asked = [Question(i, noise(60, 60), "what? " * (30 if i == 2 else 1)) for i in range(4)]
    stream = llava.stream(asked, RUN, BatchSettings(batch_size=4))
    assert [a.error and a.error.type for a in stream] == [None, None, "OutOfMemoryError", None]
    assert stream.stats.batch_size >= 2  # as many as fitted, not one for ever


def test_cosines_are_let_go_before_a_lone_question_fails(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, run = [], Pipeline.begin

    def tight(self: Pipeline, rows: list, *others: object) -> object:  # type: ignore[type-arg]
        known = rows[0].image.cosines
        tried.append((len(rows), bool(known)))
        if len(tried) == 1:
            known["tokens"] = torch.ones(1)
        if known:
            raise OutOfMemoryError("out of memory", "less")
        return run(self, rows, *others)

    monkeypatch.setattr(Pipeline, "begin", tight)
    answers = list(llava.stream(questions(2, 1), RUN, BatchSettings(batch_size=2, cache_bytes=0)))
    assert [answer.error for answer in answers] == [None, None]
    assert tried == [(2, False), (1, True), (1, False), (1, False)]


def shaped(number: int, text: int, visual: int, kind: str = "loaded") -> Ticket:
    """A ticket whose image has so many candidates and a newline: in its pixels, encoded, or not to be read."""
    image: Future[Any] = Future()
    if kind == "broken":
        image.set_exception(ImageError("no image", "another"))
        return Ticket(number, Question(number, None, "?"), SimpleNamespace(text_tokens=text), image, (RUN,), [None])  # type: ignore[arg-type]
    loaded: Future[Loaded] = Future()
    loaded.set_result(Loaded(Pixels(torch.zeros(1, 1), (visual, 1)), 0.0))
    image.set_result(Image(str(visual), loaded if kind == "loaded" else None))
    return Ticket(number, Question(number, None, "?"), SimpleNamespace(text_tokens=text), image, (RUN,), [None])  # type: ignore[arg-type]


def batches_of(tickets: list[Ticket], size: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Batch after batch, of all tickets that are left."""
    taken: list[list[int]] = []
    monkeypatch.setattr(Scheduler, "_answer", lambda _, batch: taken.append([ticket.number for ticket in batch]))
    pipeline = SimpleNamespace(plan=lambda pixels: SimpleNamespace(visual=pixels.size[0], packed=pixels.size[0] + 1))
    cache: Any = SimpleNamespace(tokens=lambda key: (int(key), int(key) + 1))
    nothing: Any = SimpleNamespace(tell_news=None, pipeline=pipeline)
    scheduler = Scheduler(
        nothing, [RUN], cache=cache, prefetcher=nothing, stats=StreamStats(), size=BatchSize(size), room=nothing
    )
    while left := [ticket for ticket in tickets if not ticket.taken]:
        scheduler.answer_some(left)
    return taken


def test_a_batch_is_the_oldest_and_those_nearest_to_it_in_length(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [shaped(number, text, 0, "broken") for number, text in enumerate((20, 90, 24, 21, 19, 88, 24))]
    assert batches_of(texts, 3, monkeypatch) == [[0, 3, 4], [1, 5, 2], [6]]


def test_visual_tokens_count_in_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of them: 30 + 100, 90 + 10, 30 + 10, 30 + 12, 30 + 98, 90 + 11."""
    sizes = [(30, 400), (90, 40), (30, 40), (30, 48), (30, 392), (90, 44)]
    kinds = ["loaded", "encoded", "loaded", "encoded", "encoded", "loaded"]
    tickets = [shaped(i, *size, kind) for i, (size, kind) in enumerate(zip(sizes, kinds, strict=True))]
    assert batches_of(tickets, 2, monkeypatch) == [[0, 4], [1, 5], [2, 3]]


def test_an_image_whose_length_cannot_be_told_is_answered_all_the_same(
    llava: adafv.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(*_: object) -> None:
        raise TypeError("no such shape")

    monkeypatch.setattr(Pipeline, "plan", strange)
    assert [answer.error for answer in llava.stream(questions(3, 3), RUN)] == [None] * 3


@given(
    shapes=st.lists(st.tuples(st.integers(1, 90), st.sampled_from([4, 100, 800])), min_size=1, max_size=30),
    size=st.integers(1, 9),
)
def test_no_ticket_is_forgotten_and_none_outside_a_batch_is_nearer(shapes: list[tuple[int, int]], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        batches = batches_of([shaped(number, *shape) for number, shape in enumerate(shapes)], size, patch)
    assert sorted(number for batch in batches for number in batch) == list(range(len(shapes)))
    lengths = [text + visual // 4 for text, visual in shapes]
    left = set(range(len(shapes)))
    for batch in batches:
        oldest = min(left)
        assert batch[0] == oldest
        left -= set(batch)
        far = max(abs(lengths[number] - lengths[oldest]) for number in batch)
        assert all(abs(lengths[number] - lengths[oldest]) >= far for number in left)


def test_encodings_are_let_go_before_a_lone_question_fails(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    run, let_go = Pipeline.begin, EncoderCache.let_go

    def full(self: Pipeline, rows: list, *others: object) -> object:  # type: ignore[type-arg]
        if not held:
            raise OutOfMemoryError("out of memory", "less")
        return run(self, rows, *others)

    def noted(self: EncoderCache) -> bool:
        held.append(self._encodings._bytes)
        return let_go(self)

    monkeypatch.setattr(Pipeline, "begin", full)
    monkeypatch.setattr(EncoderCache, "let_go", noted)
    stream = llava.stream(questions(3, 3), RUN, BatchSettings(batch_size=3))
    answers = list(stream)
    assert [answer.error for answer in answers] == [None] * 3
    assert len(held) == 1 and held[0] > 0 and stream.stats.images_encoded == 3


def test_no_pixels_are_held_once_they_are_encoded_or_refused(llava: adafv.Model) -> None:
    asked = [Question(i, b"no image" if i % 3 == 1 else noise(60, 60, seed=i % 4), "what?") for i in range(12)]
    stream = llava.stream(asked, RUN, BatchSettings(batch_size=2, workers=3))
    assert sum(a.error is not None for a in stream) == 4
    assert not stream._sweep._prefetcher._loading


def test_an_encoding_too_large_to_be_held_puts_no_other_out() -> None:
    held: Recent[SimpleNamespace] = Recent(10)
    for key, size in (("a", 6), ("b", 11), ("c", 4)):
        held.keep(key, SimpleNamespace(bytes=size))
    assert [key in held for key in "abc"] == [True, False, True]
    held.keep("d", SimpleNamespace(bytes=1))
    assert [key in held for key in "acd"] == [False, True, True]


def test_what_has_grown_counts_as_large_as_it_is() -> None:
    held: Recent[SimpleNamespace] = Recent(10)
    grows = SimpleNamespace(bytes=2)
    for key, thing in (("a", SimpleNamespace(bytes=4)), ("b", grows), ("c", SimpleNamespace(bytes=4))):
        held.keep(key, thing)
    grows.bytes = 6
    held.keep("b", grows)
    assert [key in held for key in "abc"] == [False, True, True]
    grows.bytes = 11
    held.keep("b", grows)
    assert [key in held for key in "bc"] == [False, True]
    held.keep("d", SimpleNamespace(bytes=6))
    assert [key in held for key in "cd"] == [True, True]


def test_what_was_used_last_stays() -> None:
    held: Recent[SimpleNamespace] = Recent(10)
    for key in "ab":
        held.keep(key, SimpleNamespace(bytes=4))
    assert held.get("a") is not None and held.get("z") is None
    held.keep("c", SimpleNamespace(bytes=4))
    assert [key in held for key in "abc"] == [True, False, True]


def test_crops_that_go_through_the_tower_together_are_bounded() -> None:
    """Eight at most, but for an image that has more of its own."""
    groups: list[list[int]] = []

    def encode(pixels: list[SimpleNamespace], _watch: object, _runs: object) -> list[SimpleNamespace]:
        groups.append([len(one.values) for one in pixels])
        return [SimpleNamespace(bytes=1) for _ in pixels]

    cache = EncoderCache(SimpleNamespace(devices=(), encode=encode), limit_bytes=10)  # type: ignore[arg-type]
    images = {str(i): Loaded(Pixels(torch.zeros(n, 1), (1, 1)), 0.0) for i, n in enumerate((5, 3, 1, 7, 1, 10, 2))}
    assert list(cache.encode(images)) == list(images)
    assert groups == [[5, 3], [1, 7], [1], [10], [2]]


def test_images_that_are_encoded_together_share_the_seconds() -> None:
    def encode(images: list[object], watch: Stopwatch, _runs: object) -> list[SimpleNamespace]:
        watch.add("vision", 6.0)
        return [SimpleNamespace(bytes=1) for _ in images]

    cache = EncoderCache(SimpleNamespace(devices=[], encode=encode), 10, [RUN])  # type: ignore[arg-type]
    pixels = SimpleNamespace(values=torch.zeros(3, 1))  # three crops each, so that two go together
    cache.encode({key: Loaded(pixels, seconds) for key, seconds in (("a", 0.5), ("b", 0.25), ("c", 1.0))})  # type: ignore[arg-type]
    costs = [cache.charge(key, RUN) for key in "abc"]
    assert costs == [EncodingCost(0.5, 3.0), EncodingCost(0.25, 3.0), EncodingCost(1.0, 6.0)]
    assert cache.charge("a", RUN) is None


def test_an_encoding_holds_no_memory_of_others(llava: adafv.Model) -> None:
    for encoding in encoded(llava, noise(60, 60), noise(60, 60, seed=1)):
        assert encoding.packed.untyped_storage().nbytes() == encoding.packed.nbytes
        assert encoding.saliency.untyped_storage().nbytes() == encoding.saliency.nbytes


def test_a_model_that_is_let_go_of_is_gone_at_once(llava_folder: Path) -> None:
    """Without a cycle that the collector would have to find: another may need its memory now."""
    model = adafv.load(str(llava_folder), dtype="float32")
    held = weakref.ref(model.pipeline.model)
    gc.collect()
    gc.disable()
    try:
        answers = list(model.answer(noise(56, 56), ["what?", "where?"], select="image", keep=4, max_new_tokens=1))
        assert [answer.error for answer in answers] == [None, None]
        del model
        assert held() is None
    finally:
        gc.enable()
