"""The vision tower with saliency against the stock tower without: crops per second."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from adafv import flops
from adafv.bench.machine import Machine
from adafv.bench.peak import Peak
from adafv.bench.records import STOCK, Row
from adafv.bench.rounds import Rounds, Sample, Spread, Variant
from adafv.bench.subject import Subject
from adafv.families.tower import layers_that_run
from adafv.images import open_image
from adafv.timing import Stopwatch

_OURS = "adafv, with saliency"


class Vision:
    """The section `vision`: tower and projector over some pictures at once.

    Args:
        subject: whose tower it is.
        batch_sizes: pictures that are encoded together.
    """

    name = "vision"

    def __init__(self, subject: Subject, batch_sizes: Sequence[int]) -> None:
        self._subject = subject
        self._sizes = sorted({min(size, len(subject.pictures)) for size in batch_sizes})
        self._pixels = [
            subject.model.pipeline.preprocess(open_image(one)) for one in subject.pictures[: self._sizes[-1]]
        ]
        self._peaks: dict[str, int | None] = {}

    def rounds(self) -> Rounds:
        """List the variants."""
        return Rounds([Variant(_named(*way), partial(self._timed, *way)) for way in self._ways])

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was measured."""
        return [self._row(*way, rounds, machine) for way in self._ways] if rounds.samples else []

    @property
    def _ways(self) -> list[tuple[str, int]]:
        return [(who, size) for size in self._sizes for who in (STOCK, _OURS)]

    def _timed(self, who: str, size: int) -> Sample:
        peak, watch = Peak(self._subject.devices), Stopwatch(self._subject.devices)
        start = watch.now()
        with peak.watched():
            (self._stock if who == STOCK else self._ours)(size)
        taken = watch.now() - start
        self._peaks[_named(who, size)] = peak.bytes
        return {"vision": taken}

    @torch.inference_mode()
    def _stock(self, size: int) -> None:
        """Run the tower and the projector of transformers over the crops, and take what LLaVA takes."""
        stock = self._subject.stock
        tower, config = stock.model.vision_tower, stock.config
        values = torch.cat([one.values for one in self._pixels[:size]]).to(self._subject.devices[0], stock.dtype)
        out = tower(values, output_hidden_states=True).hidden_states[config.vision_feature_layer]
        stock.model.multi_modal_projector(out[:, 1:] if config.vision_feature_select_strategy == "default" else out)

    def _ours(self, size: int) -> None:
        self._subject.model.pipeline.encode(self._pixels[:size], Stopwatch(self._subject.devices))

    def _row(self, who: str, size: int, rounds: Rounds, machine: Machine) -> Row:
        name, crops = _named(who, size), sum(len(one.values) for one in self._pixels[:size])
        values = rounds.values(name, "vision")
        gain = rounds.speedup(name, _named(STOCK, size), "vision") if who == _OURS else None
        accountant = self._subject.accountant
        spent = flops.vision(accountant.vision, crops) + flops.projector(
            accountant.vision, crops * accountant.vision.patches
        )
        return Row(
            section=self.name,
            subject=self._subject.name,
            variant=name,
            settings={"images": size, "crops": crops, "layers": layers_that_run(self._subject.stock.config)},
            rounds=len(values),
            seconds={"vision": Spread.of(values)},
            rate=Spread.of([crops / value for value in values]),
            flops={"vision": spent},
            bound_s={"vision": machine.bound(spent, self._subject.vision_bytes, self._subject.dtype)},
            speedups=() if gain is None else (gain,),
            peak_bytes=self._peaks.get(name),
        )


def _named(who: str, size: int) -> str:
    return f"{who}, {size} image{'s' * (size > 1)}"
