"""Answers by transformers' own `generate`, and reads the clock where our engine does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria

from adafv.bench.subject import Subject
from adafv.records import Question
from adafv.timing import Stopwatch


class _FirstToken(StoppingCriteria):  # type: ignore[misc]
    """Notes when the first token is there, and stops nothing."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch, self.at = watch, 0.0

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.at = self.at or self._watch.now()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Stock:
    """One model, asked by transformers alone.

    Args:
        subject: whose weights and processor are used.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._watch = Stopwatch(subject.devices)

    def inputs(self, questions: Sequence[Question]) -> dict[str, Tensor]:
        """Preprocess and tokenize a batch, left-padded, on the device of the embeddings."""
        subject, tokenizer = self._subject, self._subject.processor.tokenizer
        side, tokenizer.padding_side = tokenizer.padding_side, "left"
        try:
            made = subject.processor(
                images=[question.image for question in questions],
                text=[subject.prompt(question) for question in questions],
                return_tensors="pt",
                padding=True,
            )
        finally:
            tokenizer.padding_side = side
        home = subject.stock.get_input_embeddings().weight.device
        cast = {"pixel_values": subject.stock.dtype}
        return {name: value.to(home, cast.get(name)) for name, value in made.items()}

    @torch.inference_mode()
    def answer(self, inputs: dict[str, Tensor], new_tokens: int) -> dict[str, float]:
        """Generate; seconds of `ttft`, `decode` and `tpot`, from the moment when the pixels are ready."""
        start, first = self._watch.now(), _FirstToken(self._watch)
        ends = self._subject.stock.generation_config
        made = self._subject.stock.generate(
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=ends.eos_token_id,
                pad_token_id=ends.pad_token_id,
            ),
            stopping_criteria=[first],
        )
        end, steps = self._watch.now(), made.shape[1] - inputs["input_ids"].shape[1]
        taken = {"ttft": first.at - start, "decode": end - first.at, "total": end - start}
        return taken | ({"tpot": taken["decode"] / (steps - 1)} if steps > 1 else {})
