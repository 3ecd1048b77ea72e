"""What reading images costs a stream: 4-megapixel JPEGs against the same pictures already decoded and small.

`python benchmarks/decoding_images.py FOLDER`: the model of `throughput.py`; 32 questions over 16 images.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from checkpoints import llava
from measuring import interleaved, table
from PIL import Image

import adafv
from adafv import BatchSettings, Question, RunSettings

folder = llava(Path(sys.argv[1]))
rng = random.Random(0)
files, decoded = [], []
for number in range(16):
    small = Image.frombytes("RGB", (64, 48), rng.randbytes(64 * 48 * 3))
    path = folder / f"large{number}.jpg"
    small.resize((2309, 1732), Image.Resampling.BICUBIC).save(path, quality=92)
    files.append(str(path))
    decoded.append(Image.open(path).convert("RGB").resize((336, 336)))
model = adafv.load(str(folder), dtype="bfloat16")
run, batch = RunSettings(keep=64, max_new_tokens=16), BatchSettings(batch_size=8)


def stream(images: list) -> None:
    questions = [Question(i, images[i % 16], "what color is the sign behind the house?") for i in range(32)]
    if any(answer.error for answer in model.stream(questions, run, batch)):
        raise SystemExit("a question failed")


variants = {"pre-decoded": lambda: stream(decoded), "4-megapixel JPEGs": lambda: stream(files)}
print(table(interleaved(variants, rounds=4)))
