"""Vision tower with saliency against the stock tower without, and against eager attention with all maps.

`python benchmarks/vision.py FOLDER [CROPS] [DTYPE]`: FOLDER keeps the random-weight checkpoint.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from checkpoints import llava
from measuring import interleaved, table
from transformers import LlavaForConditionalGeneration

import adafv
from adafv.encoding import Pixels
from adafv.timing import Stopwatch

torch.set_num_threads(1)
folder, crops = llava(Path(sys.argv[1])), int(sys.argv[2]) if len(sys.argv) > 2 else 1
dtype = getattr(torch, sys.argv[3]) if len(sys.argv) > 3 else torch.float32
only = sys.argv[4] if len(sys.argv) > 4 else None
values = torch.randn(crops, 3, 336, 336, generator=torch.Generator().manual_seed(0))


def resident(what: str) -> float:
    """Megabytes of this process, now (`VmRSS`) or at most so far (`VmHWM`)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def stock(attention: str, **wanted: bool):
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    del model

    @torch.inference_mode()
    def run() -> object:
        out = tower(values.to(dtype), output_hidden_states=True, **wanted)
        saliency = out.attentions[-2][:, :, 0, 1:].mean(1) if wanted else None
        return projector(out.hidden_states[-2][:, 1:]), saliency

    return run


def ours():
    pipeline = adafv.load(str(folder), dtype=str(dtype).removeprefix("torch.")).pipeline
    pixels = [Pixels(values[i : i + 1], (336, 336)) for i in range(crops)]
    return lambda: pipeline.encode(pixels, Stopwatch())


makers = {
    "stock, sdpa, no saliency": lambda: stock("sdpa"),
    "adafv, with saliency": ours,
    "eager, all attention maps": lambda: stock("eager", output_attentions=True),
}
if only:
    run = makers[only]()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew, now that the weights are loaded
    before = resident("VmRSS")
    run()
    print(resident("VmHWM") - before)
else:
    print(f"{crops} crops, {dtype}, one thread")
    print(table(interleaved({name: make() for name, make in makers.items()}, rounds=7)))
    for name in makers:
        command = [sys.executable, __file__, str(folder), str(crops), str(dtype).removeprefix("torch."), name]
        peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
        print(f"{name:40} {float(peak):12.0f} MB beyond the loaded weights, in a process of its own")
