"""Encodes of each image the tiles that its questions want, the thumbnail first, which says which these are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from adafv.encoding import ImageEncoding, tower_groups
from adafv.errors import InputError
from adafv.evidence import check_scores
from adafv.families.skipping import SkippingStages
from adafv.memory import memory_explained
from adafv.pipeline import Pipeline, reads_keys
from adafv.prompt import Prompt
from adafv.settings import RunSettings
from adafv.signals.gathering import gather_evidence
from adafv.tiled import Tiled, View
from adafv.tiles import ALL, Ranked, held, looks, rank
from adafv.timing import Stopwatch


def skips(pipeline: Pipeline, runs: Iterable[RunSettings]) -> bool:
    """Tell whether any run may leave tiles out, with this checkpoint."""
    return isinstance(pipeline.stages, SkippingStages) and any(run.tiles != ALL for run in runs)


class Store(Protocol):
    """Keeps encodings between runs, by key."""

    def load(self, key: str) -> ImageEncoding | None:
        """Read an encoding; `None` where there is none."""

    def save(self, key: str, encoding: ImageEncoding) -> None:
        """Write an encoding."""


class Tiling:
    """Encodes images in part, with one loaded checkpoint.

    Args:
        pipeline: of it.
        runs: that images are encoded for.
        store: keeps encoded crops on disk.
    """

    def __init__(self, pipeline: Pipeline, runs: Sequence[RunSettings], store: Store | None = None) -> None:
        if not isinstance(pipeline.stages, SkippingStages):
            raise InputError("tiles: this checkpoint's images have none that can be left out", "leave it out")
        self._pipeline, self._stages, self._runs, self._store = pipeline, pipeline.stages, tuple(runs), store

    def views(self, asked: Sequence[tuple[Tiled, Prompt, Sequence[RunSettings]]]) -> list[dict[RunSettings, View]]:
        """Encode what questions want to see of their images, and show it to them.

        Args:
            asked: image and prompt of each question, and the settings that it is asked under.

        Raises:
            InputError: saliency or similarity that is not finite.
            OutOfMemoryError: too many crops at once.
        """
        self.encode((tiled, self._at_once(tiled, runs)) for tiled, _, runs in asked)
        looking = [
            number
            for number, (tiled, _, runs) in enumerate(asked)
            if any(looks(str(run.tiles), tiled.crops - 1) for run in runs)
        ]
        watch = Stopwatch(self._pipeline.devices)
        with watch.span("score"):
            ranked = dict(zip(looking, self._ranked([asked[number][:2] for number in looking]), strict=True))
        seconds = watch["score"] / max(1, len(looking))
        wanted = [
            {run: _wanted(tiled, run, ranked.get(number)) for run in runs}
            for number, (tiled, _, runs) in enumerate(asked)
        ]
        self.encode(
            (tiled, sorted({crop for crops in own.values() for crop in crops}))
            for (tiled, _, _), own in zip(asked, wanted, strict=True)
        )
        return [
            {
                run: View(self._view(tiled, crops), tiled, seconds if looks(str(run.tiles), tiled.crops - 1) else None)
                for run, crops in own.items()
            }
            for (tiled, _, _), own in zip(asked, wanted, strict=True)
        ]

    @torch.inference_mode()
    def encode(self, wanted: Iterable[tuple[Tiled, Iterable[int]]]) -> None:
        """Encode crops of images that are not encoded yet, those of an image together, as `tower_groups` has it."""
        todo: dict[int, tuple[Tiled, dict[int, None]]] = {}
        for tiled, crops in wanted:
            _, own = todo.setdefault(id(tiled), (tiled, {}))
            own.update(dict.fromkeys(crop for crop in tiled.missing(crops) if not self._read(tiled, crop)))
        missing = [((tiled, list(own)), len(own)) for tiled, own in todo.values() if own]
        for group in tower_groups(missing):
            values = torch.cat([tiled.pixels.values[crops] for tiled, crops in group])
            watch = Stopwatch(self._pipeline.devices)
            with watch.span("vision"), memory_explained():
                parts = [
                    part.to(self._pipeline.home) for part in self._stages.crops(values, keys=reads_keys(self._runs))
                ]
            check_scores("saliency", torch.stack([part.saliency for part in parts]))
            places = [(tiled, crop) for tiled, crops in group for crop in crops]
            for (tiled, crop), part in zip(places, parts, strict=True):
                tiled.parts[crop], tiled.seconds[crop] = part, watch["vision"] / len(parts)
                if self._store is not None:
                    self._store.save(_key(tiled, crop), part)

    def _read(self, tiled: Tiled, crop: int) -> bool:
        """Read a crop's encoding from disk; tells whether there was one."""
        part = None if self._store is None else self._store.load(_key(tiled, crop))
        if part is not None:
            tiled.parts[crop] = part
        return part is not None

    @torch.inference_mode()
    def _ranked(self, asked: Sequence[tuple[Tiled, Prompt]]) -> list[Ranked]:
        """Rank the tiles of images by their thumbnails, each for its question; asks the device once for all."""
        if not asked:
            return []
        texts = self._stages.embed([token for _, prompt in asked for token in prompt.after])
        evidence = gather_evidence(
            [tiled.parts[0] for tiled, _ in asked],
            list(torch.split(texts, [len(prompt.after) for _, prompt in asked])),
            [prompt.question_span for _, prompt in asked],
            [0] * len(asked),
            {"text"},
        )
        relevance = evidence.relevance
        sizes = [tiled.pixels.size for tiled, _ in asked]
        under = {size: self._stages.under(size) for size in sizes}
        rows = zip(evidence.saliency, relevance, sizes, strict=True)
        sums = [held(salient, relevant, under[size]) for salient, relevant, size in rows]
        both, ranked, begin = torch.cat(sums, dim=1), [], 0
        check_scores("similarity", both)
        found: list[list[float]] = both.tolist()
        for size in sizes:
            end = begin + len(under[size])
            plan = self._stages.plan(self._pipeline.model.config, *size)
            shown = [crop for crop in range(1, plan.crops) if plan.crop_sizes[crop]]
            salient, relevant = ([row[begin + crop - 1] for crop in shown] for row in found)
            ranked.append(rank(salient, relevant, shown))
            begin = end
        return ranked

    def _at_once(self, tiled: Tiled, runs: Iterable[RunSettings]) -> range:
        """List the crops to encode before anything is looked at: all, where some run wants them all anyway."""
        count = tiled.crops - 1
        return range(1 if all(looks(str(run.tiles), count) for run in runs) else tiled.crops)

    @torch.inference_mode()
    def _view(self, tiled: Tiled, crops: tuple[int, ...]) -> ImageEncoding:
        view = tiled.views.get(crops)
        if view is None:
            parts = {crop: tiled.parts[crop] for crop in crops}
            view = tiled.views[crops] = self._stages.assembled(tiled.pixels.size, parts).to(self._pipeline.home)
        return view


def _key(tiled: Tiled, crop: int) -> str:
    """Name a crop in the store, where whole images have the keys of their contents."""
    return f"{tiled.key} crop {crop}"


def _wanted(tiled: Tiled, run: RunSettings, ranked: Ranked | None) -> tuple[int, ...]:
    """List the crops that a question wants under some settings."""
    if ranked is None or not looks(str(run.tiles), tiled.crops - 1):
        return tuple(range(tiled.crops))
    return ranked.wanted(str(run.tiles))
