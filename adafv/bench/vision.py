"""The vision tower with saliency against the stock tower without: crops per second; and with tiles left out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from adafv import flops
from adafv.bench.machine import Machine
from adafv.bench.peak import Peak
from adafv.bench.records import STOCK, Row
from adafv.bench.rounds import Rounds, Sample, Spread, Variant
from adafv.bench.subject import QUESTION, Subject
from adafv.errors import OutOfMemoryError
from adafv.families.skipping import SkippingStages
from adafv.families.tower import layers_that_run
from adafv.images import open_image
from adafv.memory import is_out_of_memory
from adafv.records import Question
from adafv.settings import RunSettings
from adafv.tiled import Tiled
from adafv.tiles import looks
from adafv.tiling import Tiling
from adafv.timing import Stopwatch

_OURS = "adafv, with saliency"
_EAGER = "eager, all attention maps"  # which is how saliency is had of transformers as it is
_FEWER = "adafv, 2 tiles of each"  # the thumbnail first, which is looked at
_TILES = 2
_FEW = 8  # pictures at once of which all maps may fit


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
        self._full: set[str] = set()

    def rounds(self) -> Rounds:
        """List the variants."""
        return Rounds([Variant(_named(*way), partial(self._timed, *way)) for way in self._ways])

    def rows(self, rounds: Rounds, machine: Machine) -> list[Row]:
        """Sum up what was measured."""
        return [self._row(*way, rounds, machine) for way in self._ways] if rounds.samples else []

    @property
    def _ways(self) -> list[tuple[str, int]]:
        fewer = [_FEWER] * all(looks(str(_TILES), len(one.values) - 1) for one in self._pixels)
        fewer *= isinstance(self._subject.model.pipeline.stages, SkippingStages)
        return [(who, size) for size in self._sizes for who in (STOCK, _OURS, *fewer, *[_EAGER] * (size <= _FEW))]

    def _timed(self, who: str, size: int) -> Sample:
        if _named(who, size) in self._full:
            return {}
        peak, watch = Peak(self._subject.devices), Stopwatch(self._subject.devices)
        run = {STOCK: self._stock, _OURS: self._ours, _EAGER: self._eager, _FEWER: self._fewer}[who]
        start = watch.now()
        try:
            with peak.watched():
                run(size)
        except (RuntimeError, OutOfMemoryError) as error:
            if not (isinstance(error, OutOfMemoryError) or is_out_of_memory(error)):
                raise
            self._full.add(_named(who, size))
            return {}
        taken = watch.now() - start
        self._peaks[_named(who, size)] = peak.bytes
        return {"vision": taken}

    def _eager(self, size: int) -> None:
        """Do the same with the attention kernel that gives maps, and keep those of all layers."""
        tower = self._subject.stock.model.vision_tower
        before = tower.config._attn_implementation
        tower.set_attn_implementation("eager")
        try:
            self._stock(size, output_attentions=True)
        finally:
            tower.set_attn_implementation(before)

    @torch.inference_mode()
    def _stock(self, size: int, **more: bool) -> None:
        """Run the tower and the projector of transformers over the crops, and take what LLaVA takes."""
        stock = self._subject.stock
        tower, config = stock.model.vision_tower, stock.config
        values = torch.cat([one.values for one in self._pixels[:size]]).to(self._subject.devices[0], stock.dtype)
        given = tower(values, output_hidden_states=True, **more)  # maps, too, are held until all is done
        out = given.hidden_states[config.vision_feature_layer]
        stock.model.multi_modal_projector(out[:, 1:] if config.vision_feature_select_strategy == "default" else out)

    def _ours(self, size: int) -> None:
        self._subject.model.pipeline.encode(self._pixels[:size], Stopwatch(self._subject.devices))

    def _fewer(self, size: int) -> None:
        """Encode the thumbnails, look at them, and encode the tiles that a question wants."""
        model, run = self._subject.model, RunSettings(tiles=_TILES)
        prompt = model.render(Question(0, None, QUESTION), run)
        tiled = [Tiled(str(number), one, 0.0) for number, one in enumerate(self._pixels[:size])]
        Tiling(model.pipeline, [run]).views([(one, prompt, [run]) for one in tiled])

    def _row(self, who: str, size: int, rounds: Rounds, machine: Machine) -> Row:
        name, crops = _named(who, size), sum(len(one.values) for one in self._pixels[:size])
        crops = size * (1 + _TILES) if who == _FEWER else crops
        values = rounds.values(name, "vision")
        other = _OURS if who == _FEWER else STOCK
        gain = rounds.speedup(name, _named(other, size), "vision") if who != STOCK else None
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
            seconds={"vision": Spread.of(values)} if values else {},
            rate=Spread.of([crops / value for value in values]) if values else None,
            flops={"vision": spent},
            bound_s={"vision": machine.bound(spent, self._subject.vision_bytes, self._subject.dtype)},
            speedups=() if gain is None else (gain,),
            peak_bytes=self._peaks.get(name),
            notes=("more than the memory holds",) if name in self._full else (),
        )


def _named(who: str, size: int) -> str:
    return f"{who}, {size} image{'s' * (size > 1)}"
