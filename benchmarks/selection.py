"""What choosing costs, next to the prefill it saves: `python benchmarks/selection.py [ROUNDS] [DEVICE]`.

Batches of 8 images and questions of random numbers at the geometry of LLaVA-1.5-7B, float32. Prefill is that of one
of the language model's 32 layers and one prompt, times 32 and 8: it is linear in both. Everything takes turns within
one process; figures are medians.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch
from measuring import interleaved
from transformers import LlamaConfig, LlamaModel

from adafv import flops, pruners
from adafv.encoding import ImageEncoding
from adafv.evidence import Grid
from adafv.pruners import READABLE, Pruner, Work
from adafv.signals.gathering import gather_evidence

BATCH, TEXT, OWN, LAYERS = 8, 60, 8, 32
HIDDEN, FEATURES = 4096, 1024
GEOMETRY = flops.TextGeometry(HIDDEN, 11008, LAYERS, 32, 32, 128, 32064)
GRIDS: tuple[Grid, ...] = ((24, 24), (48, 60))
KEEPS = (64, 320)
NAMES = [name for name in pruners.BUILT_IN if name != "none"]

ROUNDS, DEVICE = (*sys.argv[1:3], *("5", "cpu")[len(sys.argv[1:3]) :])
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)


def asked(grid: Grid) -> tuple[tuple[ImageEncoding, ...], tuple[torch.Tensor, ...], list[tuple[int, int]], range]:
    """Neighbouring tokens are alike, as in pictures."""
    places = torch.arange(grid[0] * grid[1])

    def field(width: int) -> torch.Tensor:
        coarse = torch.randn(1, width, 8, 8, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=grid, mode="bicubic")[0].flatten(1).T
        return (smooth + 0.5 * torch.randn(len(places), width, generator=generator)).contiguous()

    def one() -> tuple[ImageEncoding, torch.Tensor]:
        saliency = torch.randn(len(places), generator=generator).softmax(0)
        image = ImageEncoding(
            field(HIDDEN), places, field(FEATURES), saliency, torch.zeros_like(places), places, 1, (grid,),
            field(FEATURES),
        )  # fmt: skip
        text = torch.randn(TEXT, HIDDEN, generator=generator).to(DEVICE)
        return image.to(torch.device(DEVICE)), text

    images, texts = zip(*(one() for _ in range(BATCH)), strict=True)
    return images, texts, [(1, 1 + OWN)] * BATCH, range(BATCH)


def layer() -> Callable[[int], object]:
    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=GEOMETRY.mlp, num_attention_heads=GEOMETRY.heads, num_hidden_layers=1,
        vocab_size=8,
    )  # fmt: skip
    model = LlamaModel(config).eval().to(DEVICE)
    embeddings = torch.randn(1, 48 * 60 + TEXT, HIDDEN, generator=generator).to(DEVICE)
    return lambda tokens: model(inputs_embeds=embeddings[:, :tokens], use_cache=False)


def finished(run: Callable[[], object]) -> Callable[[], None]:
    """Until the device has done it."""

    def to_the_end() -> None:
        run()
        if DEVICE.startswith("cuda"):
            torch.cuda.synchronize(DEVICE)

    return to_the_end


def charged(pruner: Pruner, visual: int, keep: int) -> float:
    """What choosing costs, as a share of the prefill FLOPs that it saves."""
    work = Work(visual, keep, OWN, HIDDEN, FEATURES, FEATURES)
    cost = flops.score(TEXT if "text" in pruner.reads else 0, visual, HIDDEN) + pruner.flops(work)
    return cost / (flops.prefill(GEOMETRY, visual + TEXT) - flops.prefill(GEOMETRY, keep + TEXT))


def measure(grid: Grid, prefill: Callable[[int], object], rounds: int) -> list[str]:
    """Lines of the table, for one size of image."""
    questions, visual = asked(grid), grid[0] * grid[1]
    evidence = gather_evidence(*questions, READABLE)
    variants: dict[str, Callable[[], object]] = {
        f"prefill {tokens}": lambda tokens=tokens: prefill(tokens + TEXT) for tokens in (visual, *KEEPS)
    }
    for name in NAMES:
        pruner = pruners.get(name)
        variants[f"score {name}"] = lambda pruner=pruner: gather_evidence(*questions, pruner.reads)
        for keep in KEEPS:
            variants[f"{name} {keep}"] = lambda pruner=pruner, keep=keep: pruner(evidence, keep)
    timed = {name: finished(run) for name, run in variants.items()}
    seconds = {name: statistics.median(times) for name, times in interleaved(timed, rounds).items()}
    lines = []
    for keep in KEEPS:
        saved = BATCH * LAYERS * (seconds[f"prefill {visual}"] - seconds[f"prefill {keep}"])
        lines.append(f"| **{visual} to {keep}** | | | saves {saved:.0f} s | |")
        for name in NAMES:
            score, prune = seconds[f"score {name}"], seconds[f"{name} {keep}"]
            in_time, in_flops = 100 * (score + prune) / saved, 100 * charged(pruners.get(name), visual, keep)
            lines.append(f"| {name} | {1e3 * score:.1f} | {1e3 * prune:.1f} | {in_time:.3f} % | {in_flops:.3f} % |")
    return lines


with torch.inference_mode():
    run = layer()
    print("| N to K, batch of 8 | score ms | prune ms | of the prefill time saved | of the prefill FLOPs saved |")
    print("|---|---|---|---|---|")
    for size in GRIDS:
        print("\n".join(measure(size, run, int(ROUNDS))), flush=True)
