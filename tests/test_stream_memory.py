"""The memory of a stream: batches fit into it, and nothing is held for longer than it is needed."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import adafv
from adafv import BatchSettings, Question, generating
from adafv.encoding import Pixels
from adafv.errors import OutOfMemoryError
from adafv.pipeline import Pipeline
from adafv.request import EncodingCost
from adafv.streaming.answerer import StreamStats
from adafv.streaming.encoder_cache import EncoderCache, Loaded
from adafv.streaming.scheduling import Scheduler
from adafv.streaming.tickets import Ticket
from adafv.timing import Stopwatch
from tests.conftest import noise
from tests.stock import encoded
from tests.test_streaming import RUN, questions, texts


def test_batches_grow_while_there_is_room(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], Pipeline.begin

    def counting(self: Pipeline, rows: list, *others: object) -> object:  # type: ignore[type-arg]
        sizes.append(len(rows))
        return run(self, rows, *others)

    monkeypatch.setattr(Pipeline, "begin", counting)
    monkeypatch.setattr(Pipeline, "has_room", lambda _: True)
    assert len(list(llava.stream(questions(120, 2), replace(RUN, max_new_tokens=1)))) == 120
    assert sizes[0] <= 8 and max(sizes) == 32
    sizes.clear()
    list(llava.stream(questions(20, 2), replace(RUN, max_new_tokens=1), BatchSettings(batch_size=4)))
    assert max(sizes) == 4


def test_batches_do_not_grow_where_nobody_knows_of_room(llava: adafv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not llava.pipeline.has_room()  # a CPU
    stream = llava.stream(questions(40, 2), replace(RUN, max_new_tokens=1))
    assert len(list(stream)) == 40 and stream.stats.batch_size == 8


@pytest.mark.parametrize("peaks,room", [((49, 10), True), ((50, 10), False), ((10, 60), False)])
def test_there_is_room_where_every_device_holds_twice_as_much(
    monkeypatch: pytest.MonkeyPatch, peaks: tuple[int, int], room: bool
) -> None:
    devices = [torch.device("cpu"), torch.device("cuda:0"), torch.device("cuda:1")]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device.index])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=100))
    assert Pipeline.has_room(SimpleNamespace(devices=devices)) == room  # type: ignore[arg-type]


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

    def full(model: object, prompts: list, *others: object) -> object:  # type: ignore[type-arg]
        left.append(sum(tensor() is not None for tensor in held))
        cache = torch.ones(len(prompts))
        held.append(weakref.ref(cache))
        if len(prompts) > 1:
            raise type(error)(*error.args)
        return generate(model, prompts, *others)  # type: ignore[arg-type]

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


def test_a_batch_is_the_oldest_and_those_nearest_to_it_in_length(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[int]] = []
    monkeypatch.setattr(Scheduler, "_answer", lambda _, batch: batches.append([ticket.number for ticket in batch]))
    nothing: Any = None
    stats = StreamStats(batch_size=3)
    listener: Any = SimpleNamespace(tell_news=None)
    scheduler = Scheduler(nothing, [], cache=nothing, prefetcher=listener, stats=stats, largest=3)
    lengths: list[Any] = [SimpleNamespace(text_tokens=count) for count in (20, 90, 24, 21, 19, 88, 24)]
    scheduler.answer_some([Ticket(number, prompt=prompt) for number, prompt in enumerate(lengths)])
    scheduler.answer_some([Ticket(number, prompt=lengths[number]) for number in (1, 2, 5, 6)])
    assert batches == [[0, 3, 4], [1, 5, 2]]


def test_no_pixels_are_held_once_they_are_encoded_or_refused(llava: adafv.Model) -> None:
    asked = [Question(i, b"no image" if i % 3 == 1 else noise(60, 60, seed=i % 4), "what?") for i in range(12)]
    stream = llava.stream(asked, RUN, BatchSettings(batch_size=2, workers=3))
    assert sum(a.error is not None for a in stream) == 4
    assert not stream._sweep._prefetcher._loading


def test_an_encoding_too_large_to_be_held_puts_no_other_out() -> None:
    encoder = EncoderCache(None, limit_bytes=10)  # type: ignore[arg-type]
    for key, size in (("a", 6), ("b", 11), ("c", 4)):
        encoder._keep(key, SimpleNamespace(bytes=size))  # type: ignore[arg-type]
    assert [key in encoder for key in "abc"] == [True, False, True]
    encoder._keep("d", SimpleNamespace(bytes=1))  # type: ignore[arg-type]
    assert [key in encoder for key in "acd"] == [False, True, True]


def test_what_was_used_last_stays() -> None:
    cache = EncoderCache(None, limit_bytes=10)  # type: ignore[arg-type]
    for key in "ab":
        cache._keep(key, SimpleNamespace(bytes=4))  # type: ignore[arg-type]
    assert cache.get("a") is not None and cache.get("z") is None
    cache._keep("c", SimpleNamespace(bytes=4))  # type: ignore[arg-type]
    assert [key in cache for key in "abc"] == [True, False, True]


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
