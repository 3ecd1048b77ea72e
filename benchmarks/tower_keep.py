"""Drop patches inside the vision tower? `python benchmarks/tower_keep.py QUESTIONS -m demo --after 2 --keep 32`.

After a layer of the tower each crop goes on with [CLS] and its patches of highest [CLS] attention there, as in EViT
(arXiv 2202.07800) without or with its fused token; what is dropped is no candidate any more, as it has no feature of
the last layer. Nothing is trained. QUESTIONS is a JSON Lines file with answers. Prints percent right at a budget of
visual tokens with the whole tower and with parts of it, the difference paired, with its interval over images, and the
share of the tower's FLOPs that is left. `--time` instead times a tower of CLIP ViT-L/336's shape with random weights,
whole and in parts, in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from paired import ahead
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

import adafv
from adafv.encoding import ImageEncoding
from adafv.families.stages import Stages
from adafv.settings import RunSettings
from adafv.signals.saliency import cls_attention


class Drop:
    """Lets part of the patches go after a layer of a tower, and knows which."""

    def __init__(self, tower: Any, after: int, share: float, fuse: bool) -> None:
        layer, config = tower.encoder.layers[after - 1], tower.config
        self.share, self.fuse, self.kept = share, fuse, torch.zeros(0)
        self._heads = config.num_attention_heads
        self._scale = (config.hidden_size // self._heads) ** -0.5
        self._seen: dict[str, Tensor] = {}
        attention = layer.self_attn
        for name, module in (("query", attention.q_proj), ("key", attention.k_proj)):
            module.register_forward_hook(lambda _m, _a, output, name=name: self._seen.__setitem__(name, output))
        layer.register_forward_hook(self._shorten)

    def _shorten(self, _module: Any, _args: Any, output: Tensor) -> Tensor | None:
        if self.share == 1:
            return None
        attention = cls_attention(self._seen["query"][:, 0], self._seen["key"], self._heads, self._scale)
        count = round(self.share * attention.shape[1])
        self.kept = attention.topk(count, dim=1).indices.sort(dim=1).values
        patches = output[:, 1:].gather(1, self.kept[..., None].expand(-1, -1, output.shape[2]))
        parts = [output[:, :1], patches]
        if self.fuse:
            weight = attention.scatter(1, self.kept, 0.0)
            weight = weight / weight.sum(1, keepdim=True)
            parts.append((weight[..., None] * output[:, 1:]).sum(1, keepdim=True).to(output.dtype))
        return torch.cat(parts, dim=1)


@contextmanager
def dropping(stages: Stages, drop: Drop) -> Iterator[None]:
    """Make encodings of what is left: no candidate is a patch that was dropped."""
    packed, read = stages._pack, stages._read

    def shorter(recorded: Any) -> tuple[Tensor, Tensor, Tensor]:
        features, saliency, keys = read(recorded)
        if drop.share == 1:
            return features, saliency, torch.ones_like(keys[..., :1])
        whole, kept = stages.side**2, drop.kept
        count = kept.shape[1]
        place = kept[..., None]
        spread = features.new_zeros(len(kept), whole, features.shape[2])
        spread.scatter_(1, place.expand(-1, -1, features.shape[2]), features[:, :count])
        salient = saliency.new_zeros(len(kept), whole).scatter(1, kept, saliency[:, :count])
        return spread, salient, keys.new_zeros(len(kept), whole, 1).scatter(1, place, 1.0)

    def pack(*parts: Any) -> ImageEncoding:
        encoding = packed(*parts)
        there = encoding.keys[:, 0] == 1
        of_packed = torch.ones(len(encoding.packed), dtype=torch.bool)
        of_packed[encoding.candidates[~there]] = False
        return replace(
            encoding,
            packed=encoding.packed[of_packed],
            candidates=(of_packed.cumsum(0) - 1)[encoding.candidates[there]],
            features=encoding.features[there],
            saliency=encoding.saliency[there],
            crop=encoding.crop[there],
            cell=encoding.cell[there],
            grids=((1, int(there.sum())),),
            keys=None,
        )

    encode = stages.encode
    with (
        mock.patch.object(stages, "_read", shorter),
        mock.patch.object(stages, "_pack", pack),
        mock.patch.object(stages, "encode", lambda images, keys=False: encode(images, keys=True)),
    ):
        yield


def right(model: Any, lines: Sequence[dict[str, Any]], folder: Path, run: RunSettings) -> np.ndarray:
    """(questions,) 1 where the answer is the true one."""
    questions = [adafv.Question(number, folder / line["image"], line["text"]) for number, line in enumerate(lines)]
    answers = model.batch(questions, run, batch_size=32)
    return np.array([answer.text == line["answer"] for answer, line in zip(answers, lines, strict=True)], dtype=float)


def measure(options: argparse.Namespace) -> None:
    """Print a Markdown table."""
    lines = [json.loads(line) for line in options.questions.read_text().splitlines()]
    names = {name: number for number, name in enumerate(dict.fromkeys(line["image"] for line in lines))}
    images = np.array([names[line["image"]] for line in lines])
    model = adafv.load(options.model, dtype="float32", device_map="cpu")
    stages = model.pipeline.stages
    tower = stages.model.model.vision_tower
    layers = len(tower.encoder.layers)
    drop = Drop(tower, options.after, 1.0, options.fuse)
    print(f"{len(lines)} questions, dropped after layer {options.after} of {layers}\n")
    print("| keep | tower | right | against the whole tower |\n|---|---|---|---|")
    for keep in options.keep:
        run, whole = RunSettings(keep=keep, pruner=options.pruner, max_new_tokens=3), np.zeros(0)
        for share in (1.0, *options.shares):
            drop.share = share
            with dropping(stages, drop):
                found = right(model, lines, options.questions.parent, run)
            left = options.after / layers + (1 - options.after / layers) * share
            cells = [str(keep), f"{share:.0%} ({left:.0%} of FLOPs)", f"{100 * found.mean():.1f}"]
            if share == 1:
                whole = found
                cells.append("")
            else:
                cells.append(ahead(images, found, whole))
            print(f"| {' | '.join(cells)} |", flush=True)


def timed(options: argparse.Namespace) -> None:
    """Print what a tower of 24 layers takes for a crop, in CPU seconds: medians of rounds that take turns."""
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    tower = CLIPVisionModel(config).eval()
    inner = getattr(tower, "vision_model", tower)
    drop, after = Drop(inner, 12, 1.0, options.fuse), torch.randn(2, 3, 336, 336)
    seconds: dict[float, list[float]] = {share: [] for share in (1.0, *options.shares)}
    with torch.inference_mode():
        for _ in range(options.rounds):
            for share, taken in seconds.items():
                drop.share = share
                begun = time.process_time()
                tower(after)
                taken.append((time.process_time() - begun) / len(after))
    whole = median(seconds[1.0])
    for share, taken in seconds.items():
        print(f"{share:.0%} after layer 12 of 23: {median(taken):.2f} s, {median(taken) / whole:.2f} of the whole")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path, nargs="?", help="JSON Lines with image, text and answer")
    parser.add_argument("-m", "--model", default="demo")
    parser.add_argument("--after", type=int, default=2, help="layer after which patches are dropped")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5, 0.25], help="of patches that go on")
    parser.add_argument("--keep", nargs="+", default=["32"], help="numbers of visual tokens")
    parser.add_argument("--pruner", default="adafv")
    parser.add_argument("--fuse", action="store_true", help="EViT's fused token, which is dropped at the end")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.time:
        timed(options)
    elif options.questions is None or not all(0 < share <= 1 for share in options.shares):
        parser.error("give a file of questions, and shares above 0 and up to 1")
    else:
        measure(options)


if __name__ == "__main__":
    main()
