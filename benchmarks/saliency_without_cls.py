"""What saliency can be read from where there is no [CLS]: attention received, or the norm of the feature?

The demo's tower has a [CLS] token, so the three can be compared on it: its attention, the mean attention that a patch
receives from the other patches, and the norm of its feature, with all else as it is. No SigLIP tower is measured here.

    python -m recipe.heldout --set hard --split tune --per-kind 30 --out hard
    python benchmarks/saliency_without_cls.py hard
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import adafv
from adafv.signals.saliency import received_attention

KEEPS = ("25%", "12.5%")
PRUNERS = ("saliency", "adafv")


def received(query: torch.Tensor, keys: torch.Tensor, heads: int, scale: float) -> torch.Tensor:
    """Take the attention of all patches, without [CLS]."""
    return received_attention(query[:, 1:], keys[:, 1:], heads, scale)


@contextmanager
def reading(model: adafv.Model, name: str) -> Iterator[None]:
    """Let the model read its saliency from something else."""
    stages: Any = model.pipeline.stages
    kind, features = stages._kind, stages._vision_features
    if name == "attention received":
        stages._kind = replace(kind, attention=received)
    if name == "norm of the feature":
        stages._vision_features = lambda values: (
            (found := features(values))[0], found[0].float().norm(dim=-1), found[2]
        )  # fmt: skip
    try:
        yield
    finally:
        stages._kind, stages._vision_features = kind, features


def main() -> None:
    """Print percent right for each source, pruner and budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of `python -m recipe.heldout`")
    folder = parser.parse_args().folder
    lines = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [adafv.Question(i, str(folder / line["image"]), line["text"]) for i, line in enumerate(lines)]
    model = adafv.load("demo", dtype="float32", device_map="cpu")
    for name in ("attention of [CLS]", "attention received", "norm of the feature"):
        with reading(model, name):
            for pruner in PRUNERS:
                for keep in KEEPS:
                    answers = list(model.batch(asked, keep=keep, pruner=pruner, max_new_tokens=8))
                    right = sum(a.text == str(line["answer"]) for a, line in zip(answers, lines, strict=True))
                    print(f"{name:20} {pruner:8} {keep:>5}  {100 * right / len(lines):.1f} %", flush=True)


if __name__ == "__main__":
    main()
