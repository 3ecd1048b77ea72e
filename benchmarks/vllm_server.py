"""The real vLLM behind `--server`: are the answers ours, does a killed server cost nothing, and what does it take?

python3.11 -m benchmarks.vllm_server environment ENV      a CPU build of vLLM in an environment of its own (3.5 GB)
python -m benchmarks.vllm_server equal ENV                answers against our own engine's, at 25 % and mixed budgets
python -m benchmarks.vllm_server kill ENV                 kill -9 in the middle, start again, --resume
python -m benchmarks.vllm_server compare ENV              CPU seconds at 1, 4 and 10 questions an image

The last three run in adafv's environment; README beside this file: vllm.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.vllm_process import environment, serving

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "adafv" / "demo" / "checkpoint"
SIZES = ((60, 60), (120, 60), (60, 120), (100, 100), (180, 60), (60, 200), (90, 70), (300, 110))
WORDS = "what color is the sign in the picture that is behind the big blue house".split()
KEEPS = ("25%", "all", 20, "10%")


def noise(width: int, height: int, seed: int) -> Any:
    import numpy as np
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def demo_rows() -> list[dict[str, Any]]:
    path = ROOT / "sample_images" / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row | {"image": str(path.parent / row["image"])} for row in rows]


def next_rows() -> list[dict[str, Any]]:
    images = [noise(*size, seed) for seed, size in enumerate(SIZES)]
    return [{"image": images[i % 8], "text": " ".join(WORDS[: 1 + 5 * i % 13])} for i in range(64)]


def save(folder: Path, kind: str) -> Path:
    """A random checkpoint whose heads have a size that vLLM computes on a CPU."""
    from transformers import CLIPImageProcessorPil

    from tests import tiny

    vocabulary = len(tiny.tokenizer())
    if kind == "next":
        text = tiny.text_config(
            vocabulary, hidden_size=128, num_key_value_heads=2, intermediate_size=256, max_position_embeddings=4096
        )
        return tiny.save_llava_next(folder, text_config=text)
    text = tiny.text_config(
        vocabulary, hidden_size=512, num_attention_heads=8, num_key_value_heads=8, intermediate_size=1376,
        num_hidden_layers=8, max_position_embeddings=4096,
    )  # fmt: skip
    side = {"height": 336, "width": 336}
    images = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=side)
    vision = tiny.vision_config(hidden_size=256, intermediate_size=1024, num_hidden_layers=4, image_size=336)
    return tiny.save_llava(folder, images=images, image_seq_length=576, vision_config=vision, text_config=text)


def equal(env: Path) -> None:
    import adafv

    with tempfile.TemporaryDirectory() as folder:
        for name, model, rows in (("demo", DEMO, demo_rows()), ("NeXT", save(Path(folder), "next"), next_rows())):
            own = adafv.load(str(model), dtype="float32", device_map="cpu")
            with serving(env, model, 8101) as server:
                served = adafv.load(str(model), dtype="float32", device_map="cpu", server=server.url)
                for mixed in (False, True):
                    asked = [row | ({"keep": KEEPS[i // 8 % 4]} if mixed else {}) for i, row in enumerate(rows)]
                    wanted, found = (list(one.batch(asked, max_new_tokens=16)) for one in (own, served))
                    same = sum(a.text == b.text and a.tokens == b.tokens for a, b in zip(wanted, found, strict=True))
                    print(f"{name}, {'mixed budgets' if mixed else '25 %'}: {same} of {len(wanted)} equal")


def kill(env: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row | {"question_id": 64 * turn + i} for turn in range(20) for i, row in enumerate(demo_rows())]
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        batch = [sys.executable, "-m", "adafv_cli", "batch", str(folder / "in.jsonl"), "--dtype", "float32", "-q"]

        def start(out: str, *more: str) -> subprocess.Popen[str]:
            command = [*batch, "-o", str(folder / out), *more]
            return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

        def lines(out: str) -> list[dict[str, Any]]:
            path = folder / out
            return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

        assert start("own.jsonl").wait() == 0
        with serving(env, DEMO, 8101) as server:
            run = start("out.jsonl", "--server", server.url)
            while len(lines("out.jsonl")) < 300:
                time.sleep(0.05)
            server.kill_engine()
            said = run.communicate()[1]
        left = lines("out.jsonl")
        print(
            f"killed: exit {run.returncode}, {len(left)} lines, {sum(bool(one['error']) for one in left)} errors",
            flush=True,
        )
        print(said.strip())
        with serving(env, DEMO, 8101) as server:
            code = start("out.jsonl", "--server", server.url, "--resume").wait()
        texts = {one["question_id"]: one["text"] for one in lines("own.jsonl")}
        found = [(one["question_id"], one["text"]) for one in lines("out.jsonl")]
        once = sorted(number for number, _ in found) == sorted(texts)
        print(
            f"resumed: exit {code}, {len(found)} lines, every id once: {once}, equal: {dict(found) == texts}",
            flush=True,
        )


def checkpoint(folder: Path, geometry: str, dtype: str, device: str) -> Path:
    """Random weights of a named geometry, saved; heads that are too small for vLLM become fewer and larger."""
    import torch

    from adafv.bench import geometries, random_weights

    shape = geometries.geometry(geometry)
    if shape.text["hidden_size"] // shape.text["num_attention_heads"] < 32:
        shape = replace(shape, text=shape.text | {"num_attention_heads": 2, "num_key_value_heads": 2})
    model, processor = random_weights.build(shape, getattr(torch, dtype), torch.device(device))
    model.pipeline.model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def compare(env: Path, chosen: argparse.Namespace) -> None:
    """Interleaved; each count of questions an image has images of its own, so that no cache is warm."""
    from adafv.bench import geometries

    for name in chosen.geometry.split(",") if chosen.geometry is not None else [None]:
        with tempfile.TemporaryDirectory() as folder:
            if name is None:
                model, size = save(Path(folder), "mid"), (336, 336)
            else:
                print(name)
                model = checkpoint(Path(folder), name, chosen.dtype, chosen.device)
                size = geometries.geometry(name).picture
            compare_one(env, model, size, chosen)


def compare_one(env: Path, model: Path, size: tuple[int, int], chosen: argparse.Namespace) -> None:
    import adafv

    flags = ["--dtype", chosen.dtype, "--max-model-len", "4096", *shlex.split(chosen.vllm)]
    with (
        serving(env, model, 8103, "--enable-prefix-caching", *flags) as cached,
        serving(env, model, 8104, "--no-enable-prefix-caching", *flags) as plain,
    ):
        here: dict[str, Any] = {"dtype": chosen.dtype, "device_map": chosen.device}
        own = adafv.load(str(model), **here)
        at = {one.url: adafv.load(str(model), server=one.url, **here) for one in (cached, plain)}
        ways: list[tuple[str, Any, Any, dict[str, Any]]] = [
            ("our engine, all", own, None, {"keep": "all"}),
            ("our engine, 25 %", own, None, {}),
            ("our engine, 25 % by saliency", own, None, {"pruner": "saliency"}),
            ("vLLM, all, no prefix cache", at[plain.url], plain, {"keep": "all"}),
            ("vLLM, all, prefix cache", at[cached.url], cached, {"keep": "all"}),
            ("vLLM, 25 % by adafv", at[cached.url], cached, {}),
            ("vLLM, 25 % by saliency, prefix cache", at[cached.url], cached, {"pruner": "saliency"}),
        ]
        for each in map(int, chosen.each.split(",")):
            measure(ways, each, max(1, chosen.questions // each), size, chosen.rounds)


def measure(ways: list[tuple[str, Any, Any, dict[str, Any]]], each: int, images: int, size: Any, rounds: int) -> None:
    """Print the least CPU time and the least time of every way, over some rounds and one that warms up."""
    taken: dict[str, list[tuple[float, float]]] = {}
    for turn in range(rounds + 1):
        for name, loaded, server, how in random.sample(ways, len(ways)):
            pictures = [noise(*size, random.randrange(2**31)) for _ in range(images)]
            texts = [" ".join(WORDS[: 3 + number % each]) for number in range(images * each)]
            asked = [{"image": pictures[number // each], "text": text} for number, text in enumerate(texts)]
            used, began = time.process_time() + (server.cpu_s() if server else 0), time.perf_counter()
            assert all(one.error is None for one in loaded.batch(asked, max_new_tokens=16, **how))
            took = time.process_time() + (server.cpu_s() if server else 0) - used, time.perf_counter() - began
            if turn:  # the first warms up
                taken.setdefault(name, []).append(took)
    for name, *_ in ways:
        cpu, wall = (min(column) for column in zip(*taken[name], strict=True))
        print(f"{each:2} an image: {name:40} {cpu:7.1f} s CPU {wall:7.1f} s, {images * each} questions")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["environment", "equal", "kill", "compare"])
    parser.add_argument("env", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--geometry", help="of adafv bench, several with commas; default: a small one, for CPUs")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--each", default="1,4,10", help="questions an image")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vllm", default="", metavar="FLAGS", help="further ones of vllm serve")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the servers would stay
    sys.stdout.reconfigure(line_buffering=True)
    if chosen.what == "compare":
        compare(chosen.env.resolve(), chosen)
    else:
        {"environment": environment, "equal": equal, "kill": kill}[chosen.what](chosen.env.resolve())
