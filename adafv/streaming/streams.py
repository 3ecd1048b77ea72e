"""Streams of answers at the machine's limit: questions are prefetched, batched by length and answered in order."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence

from adafv.headroom import Headroom
from adafv.pipeline import reads_keys
from adafv.records import Answer, Question
from adafv.settings import BatchSettings, RunSettings
from adafv.streaming.answerer import Answerer, StreamStats, Suspect
from adafv.streaming.encoder_cache import EncoderCache
from adafv.streaming.encoding_store import EncodingStore
from adafv.streaming.image_cache import ImageCache
from adafv.streaming.prefetching import Item, Prefetcher
from adafv.streaming.scheduling import Scheduler
from adafv.streaming.sizing import BatchSize
from adafv.streaming.tile_cache import TileCache
from adafv.tiling import skips

_AHEAD_OF = 32  # the batch that is read ahead of at first, where the size is still to be found


class SweepStream(Iterator[list[Answer]]):
    """For each question its answers under several runs, in input order; the work is done by the thread that iterates.

    A batch of questions is answered under every run before the encodings of its images are let go.

    Args:
        model: answers batches.
        items: questions, or questions with some of the runs; answers among them are passed through in their place.
        runs: how questions are answered; they differ in `keep` and `pruner` alone.
        batch: how the stream is worked through.
        stop: when set, the running batch is finished, what can be delivered in order is, and the stream ends.
    """

    def __init__(
        self,
        model: Answerer,
        items: Iterable[Item],
        runs: Sequence[RunSettings],
        batch: BatchSettings,
        stop: threading.Event | None = None,
    ) -> None:
        size = BatchSize(batch.batch_size)
        self.stats = StreamStats(batch_size=size.now)
        self._stop = stop or threading.Event()
        cache, requests = _cache(model, runs, batch), model.pipeline.decoder.requests
        self._prefetcher = Prefetcher(
            items,
            runs=runs,
            render=model.render,
            preprocess=lambda image: model.pipeline.preprocess(image, runs[0]),  # they all pad, or none does
            failed=model.failed,
            encoded=cache.__contains__,
            workers=batch.workers,
            ahead=batch.ahead * (_AHEAD_OF if batch.batch_size == "auto" else size.now) + requests,
        )
        room = Headroom(model.pipeline.devices)
        self._scheduler = Scheduler(
            model, runs, cache=cache, prefetcher=self._prefetcher, stats=self.stats, size=size, room=room
        )
        self._answers = self._deliver()

    def __next__(self) -> list[Answer]:
        return next(self._answers)

    @property
    def suspects(self) -> list[Suspect]:
        """Questions that a server had when it died, once the stream has raised that."""
        return self._scheduler.suspects

    def close(self) -> None:
        """End the stream early and let go of its threads."""
        self._answers.close()
        self._prefetcher.close()  # a generator that never began does not end either

    def _deliver(self) -> Generator[list[Answer]]:
        """Yield answers in order, held back until those before them are there."""
        try:
            while True:
                self._scheduler.settle()
                while (ticket := self._prefetcher.pop_answered()) is not None:
                    yield [answer for answer in ticket.answers if answer is not None]
                if self._stop.is_set() or self._scheduler.lost is not None:
                    if self._scheduler.settle(wait=True):
                        continue
                    if self._scheduler.lost is not None:
                        raise self._scheduler.lost
                    return
                ready = self._prefetcher.ready(self.stats.batch_size, self._stop)
                if ready:
                    self._scheduler.answer_some(ready)
                elif self._prefetcher.drained():
                    return
        finally:
            self._prefetcher.close()


def _cache(model: Answerer, runs: Sequence[RunSettings], batch: BatchSettings) -> ImageCache:
    """Make the cache of images: by tiles where some may be skipped, else as wholes."""
    if skips(model.pipeline, runs):
        return TileCache(model.pipeline, batch.cache_bytes, runs, _store(model, runs, batch))
    return EncoderCache(model.pipeline, batch.cache_bytes, runs, _store(model, runs, batch))


def _store(model: Answerer, runs: Sequence[RunSettings], batch: BatchSettings) -> EncodingStore | None:
    """Open the folder of encodings, where there is one; they are told apart by padding, and by having keys, too."""
    if batch.encodings is None:
        return None
    pipeline = model.pipeline
    padded = pipeline.stages.padded(runs[0].pad, runs[0].protocol)
    fingerprint = f"{model.vision_fingerprint()} {padded}" + " keys" * reads_keys(runs)
    return EncodingStore(batch.encodings, fingerprint, batch.encodings_bytes, pipeline.home)


class AnswerStream(Iterator[Answer]):
    """Answers in input order: the stream of a single run.

    Args:
        model: answers batches.
        items: questions; an answer among them is passed through in its place.
        run: how questions are answered.
        batch: how the stream is worked through.
        stop: when set, the running batch is finished, what can be delivered in order is, and the stream ends.
    """

    def __init__(
        self,
        model: Answerer,
        items: Iterable[Question | Answer],
        run: RunSettings,
        batch: BatchSettings,
        stop: threading.Event | None = None,
    ) -> None:
        self._sweep = SweepStream(model, items, [run], batch, stop)

    def __next__(self) -> Answer:
        (answer,) = next(self._sweep)
        return answer

    @property
    def stats(self) -> StreamStats:
        """Counters, live."""
        return self._sweep.stats

    def close(self) -> None:
        """End the stream early and let go of its threads."""
        self._sweep.close()
