"""Questions per second: transformers' own generate against `adafv batch`'s stream, on a random-weight model.

`python benchmarks/throughput.py FOLDER`: ViT-L/14-336 and an LLM of 0.8 B parameters, bf16; 64 questions over 16
images, 16 new tokens, K = 64. The stock variants are timed on their first questions, which cost as much as all others.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch
from checkpoints import llava
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import adafv
from adafv import BatchSettings, Question, RunSettings

ROUNDS, NEW = 3, 16
folder = llava(Path(sys.argv[1]))
rng = random.Random(0)
images = []
for number in range(16):
    small = Image.frombytes("RGB", (8, 6), rng.randbytes(8 * 6 * 3))
    path = folder / f"image{number}.png"
    small.resize((640, 480), Image.Resampling.BICUBIC).save(path)
    images.append(path)
words = "what color is the sign behind the big house and how many boats are there in front of the trees".split()
questions = [Question(i, str(images[i % 16]), " ".join(words[: 6 + rng.randrange(12)])) for i in range(64)]

ours = adafv.load(str(folder), dtype="bfloat16")
processor = AutoProcessor.from_pretrained(folder)
processor.tokenizer.padding_side = "left"
stock = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()


@torch.inference_mode()
def dense(size: int, count: int) -> float:
    start = time.perf_counter()
    for at in range(0, count, size):
        group = questions[at : at + size]
        texts = [f"USER: <image>\n{question.text} ASSISTANT:" for question in group]
        pictures = [Image.open(question.image).convert("RGB") for question in group]
        inputs = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
        stock.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    return count / (time.perf_counter() - start)


def pruned(size: int, count: int) -> float:
    run = RunSettings(keep=64, max_new_tokens=NEW)
    start = time.perf_counter()
    answers = list(ours.stream(questions[:count], run, BatchSettings(batch_size=size)))
    seconds = time.perf_counter() - start
    if not all(a.tokens is not None and a.tokens.generated == NEW for a in answers):
        raise SystemExit("some answers ended early: the rates would not compare")
    return count / seconds


variants = {
    "(a) transformers, dense, one at a time": lambda: dense(1, 4),
    "(b) transformers, dense, batches of 8": lambda: dense(8, 16),
    "(c) adafv, K=64, batch size 1": lambda: pruned(1, 64),
    "(d) adafv, K=64, batch size 8": lambda: pruned(8, 64),
    "(e) adafv, K=64, batch size 16": lambda: pruned(16, 64),
}
dense(1, 1), pruned(8, 8)
rates = {name: [] for name in variants}
for _ in range(ROUNDS):
    for name, run in variants.items():
        rates[name].append(run())
        print(f"{name:42} {rates[name][-1]:8.3f} questions/s", flush=True)
first, second = list(rates)[:2]
print()
for name, values in rates.items():
    over = [sorted(v / b for v, b in zip(values, rates[base], strict=True))[ROUNDS // 2] for base in (first, second)]
    print(f"{name:42} {sorted(values)[ROUNDS // 2]:8.3f} questions/s  {over[0]:6.2f}x (a)  {over[1]:6.2f}x (b)")
